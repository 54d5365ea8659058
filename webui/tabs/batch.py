"""The batch tab: a file of questions, progress, scores, and the results as a file."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr

from webui.batch import Progress, ask_all
from webui.client import MAX_TOKENS, GatewayClient
from webui.errors import WebError
from webui.labels import QUIET, STREAMED, Labels
from webui.questions import Answer, Question, read_questions, write_answers
from webui.scores import average, can_score, scored
from webui.stream import Stops, merged
from webui.tables import html_table
from webui.texts import Language, say

_SHOWN_ROWS = 200
Update = tuple[Any, ...]


class BatchTab:
    """Layout and behaviour."""

    def __init__(self, client: GatewayClient, labels: Labels, language: Any) -> None:
        self._client = client
        self._stops = Stops()
        with labels.put(gr.Tab(id="batch", elem_id="tab-batch"), label="batch.tab") as self.tab:
            labels.put(gr.Markdown(), value="batch.shapes")
            self._lay_out(labels)
        self.start.click(
            self._run,
            [language, self.file, self.at_a_time, self.max_tokens],
            [self.notice, self.results, self.download],
            **STREAMED,
        )
        self.stop.click(self._stop, None, None, **QUIET)

    def _lay_out(self, labels: Labels) -> None:
        with gr.Row():
            self.file = labels.put(
                gr.File(file_types=[".jsonl", ".json", ".txt"], elem_id="batch-file", height=140), label="batch.file"
            )
            with gr.Column():
                self.at_a_time = labels.put(
                    gr.Slider(1, 512, value=32, step=1, elem_id="batch-at-a-time"), label="batch.at_a_time"
                )
                self.max_tokens = labels.put(
                    gr.Slider(0, MAX_TOKENS, value=0, step=1, elem_id="batch-max-tokens"), label="batch.max_tokens"
                )
        with gr.Row():
            self.start = labels.put(gr.Button(variant="primary", elem_id="batch-start"), value="batch.start")
            self.stop = labels.put(gr.Button(elem_id="batch-stop"), value="batch.stop")
        self.notice = gr.Markdown(elem_id="batch-notice")
        self.download = labels.put(gr.DownloadButton(visible=False, elem_id="batch-download"), label="batch.download")
        self.results = gr.HTML(elem_id="batch-results")

    async def _run(
        self, language: Language, file: str | None, at_a_time: float, max_tokens: float, request: gr.Request
    ) -> AsyncGenerator[Update, None]:
        if file is None:
            yield say(language, "batch.no_file"), gr.skip(), gr.skip()
            return
        try:
            questions = await asyncio.to_thread(read_questions, Path(file))
        except WebError as exc:
            yield exc.sentence(language), gr.skip(), gr.skip()
            return
        options = {"max_new_tokens": int(max_tokens)} if max_tokens else {}
        session = request.session_hash or ""
        async with aclosing(self._asked(language, questions, int(at_a_time), options, session)) as updates:
            async for update in updates:
                yield update

    async def _asked(
        self, language: Language, questions: Sequence[Question], at_a_time: int, options: dict[str, Any], session: str
    ) -> AsyncGenerator[Update, None]:
        """Ask, show the progress, and at the end, whatever ended it, what there is."""
        progress, began, trouble = Progress(len(questions)), time.monotonic(), ""
        stop = self._stops.start(session)
        yield _progress(language, progress, began), "", gr.update(visible=False)
        try:
            async with aclosing(merged(ask_all(self._client, questions, options, at_a_time), stop)) as steps:
                async for progress in (step[-1] async for step in steps):
                    yield _progress(language, progress, began), gr.skip(), gr.skip()
        except WebError as exc:
            trouble = exc.sentence(language) + " "
        finally:
            self._stops.finish(session, stop)
        # In a thread: a thousand answers take seconds, in which nobody else's page would be answered.
        answers = await asyncio.to_thread(scored, progress.answers) if can_score() else progress.answers
        notice = trouble + _told(language, progress, answers, time.monotonic() - began)
        # Gradio copies the file to its own cache, which it empties after a day, before it asks for what comes next.
        with tempfile.TemporaryDirectory(prefix="llm-webui-") as folder:
            yield notice, _table(language, answers), _download(answers, Path(folder))

    def _stop(self, request: gr.Request) -> None:
        self._stops.stop(request.session_hash or "")


def _progress(language: Language, progress: Progress, began: float) -> str:
    seconds = f"{time.monotonic() - began:.1f}"
    return say(language, "batch.progress", done=len(progress.answers), total=progress.total, seconds=seconds)


def _told(language: Language, progress: Progress, answers: Sequence[Answer], seconds: float) -> str:
    done = len(progress.answers)
    key = "batch.done" if done == progress.total else "batch.stopped"
    values = {"done": done, "total": progress.total, "failed": progress.failed, "seconds": f"{seconds:.1f}"}
    return say(language, key, **values) + _score_told(language, answers)


def _score_told(language: Language, answers: Sequence[Answer]) -> str:
    if not any(answer.question.reference for answer in answers):
        return ""
    mean = average(answers)
    return say(language, "batch.no_score") if mean is None else say(language, "batch.score", score=f"{mean:.4f}")


def _table(language: Language, answers: Sequence[Answer]) -> str:
    if not answers:
        return ""
    header = [say(language, f"batch.{name}") for name in ("number", "question", "answer", "one_score")]
    rows = [
        [str(number), answer.question.text, answer.text or answer.problem, _score(answer.score)]
        for number, answer in enumerate(answers[:_SHOWN_ROWS], start=1)
    ]
    more = say(language, "batch.shown", shown=_SHOWN_ROWS, total=len(answers)) if len(answers) > _SHOWN_ROWS else ""
    return html_table(header, rows, more)


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"


def _download(answers: Sequence[Answer], folder: Path) -> Any:
    if not answers:
        return gr.update(visible=False)
    write_answers(answers, folder / "results.jsonl")
    return gr.update(value=str(folder / "results.jsonl"), visible=True)
