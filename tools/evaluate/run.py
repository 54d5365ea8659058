"""One evaluation from beginning to end; ``tools.tune`` uses it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.console import progress, say
from tools.evaluate.options import RunOptions
from tools.evaluate.player import Plan, play
from tools.evaluate.service import model_folder, read_info, wait_healthy
from tools.evaluate.summary import Judged, Summary, judge, summarise
from tools.questions import Question, read_questions
from tools.tokens import TokenCounter

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Evaluation:
    """A finished run."""

    summary: Summary
    judged: list[Judged]


def evaluate(options: RunOptions) -> Evaluation:
    """Read the questions, wait for the service, ask and judge. Raises :class:`tools.errors.ToolError`."""
    questions = read_questions(options.questions, options.limit)
    counter: CountTokens | None = TokenCounter(options.tokenizer).count if options.tokenizer else None
    say(f"waiting for {options.url}/ (up to {options.ready_timeout_s:g} s)")
    status = wait_healthy(options.url, options.ready_timeout_s)
    info = read_info(options.url)
    if counter is None:
        counter = _known_tokenizer(info)
    concurrency = options.concurrency if options.concurrency is not None else (0 if status == "batch" else 1)
    extra = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
    plan = Plan(options.url, concurrency, options.total_timeout_s, extra)
    return ask_and_judge(plan, questions, counter, options.threshold, str(info.get("model") or ""))


def ask_and_judge(
    plan: Plan, questions: Sequence[Question], counter: CountTokens | None, threshold: float | None, model: str
) -> Evaluation:
    """Ask a service that is ready, and judge its answers."""
    with progress(len(questions), "asking", "question") as bar:
        played = play(plan, [question.prompt for question in questions], bar.update)
    with progress(len(questions), "scoring", "answer") as bar:
        judged = judge(questions, played.answers, counter, bar.update)
    return Evaluation(summarise(judged, played, plan.concurrency, threshold, model), judged)


def _known_tokenizer(info: dict[str, object]) -> CountTokens | None:
    folder = model_folder(info)
    if folder is None:
        say("no tokens per second: the model's folder is not known; name it with --tokenizer")
        return None
    return TokenCounter(folder).count
