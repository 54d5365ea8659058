"""One trial: start the service with some settings, evaluate it several times, judge."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.evaluate.player import Plan, play
from tools.evaluate.summary import Summary, judge, summarise
from tools.questions import Question
from tools.tokens import TokenCounter
from tools.tune.options import Options
from tools.tune.service import TrialFailed, running_service

OnRepeat = Callable[[int, float], bool]


@dataclass(frozen=True)
class Measured:
    """What a trial came to: the median speed and the lowest score of its evaluations."""

    tokens_per_s: float
    score: float
    repeats: int
    pruned: bool = False


class Bench:
    """Everything that is the same for all trials."""

    def __init__(self, options: Options, questions: Sequence[Question], tokenizer: Path, batch: bool) -> None:
        self._options = options
        self._questions = questions
        self._count = TokenCounter(tokenizer).count
        self._batch = batch

    def measure(self, settings: dict[str, str], log: Path, prune: OnRepeat) -> Measured:
        """Run a trial. ``prune`` is told each evaluation's speed so far and may end the trial.

        Raises :class:`TrialFailed` or :class:`tools.evaluate.service.NotHealthy`.
        """
        command = [str(self._options.python), "-m", "runtime", "serve"]
        done: list[Summary] = []
        with running_service(command, settings, log, self._options.ready_timeout_s) as url:
            for number in range(self._options.repeats):
                done.append(self._evaluate(url))
                if done[-1].score < self._options.threshold:
                    break  # settings that do not pass need no exact speed
                if number + 1 < self._options.repeats and prune(number, _speed(done)):
                    return Measured(_speed(done), _score(done), len(done), pruned=True)
        return Measured(_speed(done), _score(done), len(done))

    def _evaluate(self, url: str) -> Summary:
        plan = Plan(url, 0 if self._batch else 1, self._options.total_timeout_s)
        played = play(plan, [question.prompt for question in self._questions])
        judged = judge(self._questions, played.answers, self._count)
        summary = summarise(judged, played, plan.concurrency, self._options.threshold, "")
        if summary.answered == 0:
            raise TrialFailed(f"no question was answered: {judged[0].error}")
        return summary


def _speed(done: Sequence[Summary]) -> float:
    return statistics.median(one.tokens_per_s or 0.0 for one in done)


def _score(done: Sequence[Summary]) -> float:
    return min(one.score for one in done)
