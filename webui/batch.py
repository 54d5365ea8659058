"""A file of questions, asked in lists through ``/predict``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webui.client import GatewayClient
from webui.errors import Refused
from webui.questions import Answer, Question

_BUSY_RETRIES = 3
_LONGEST_PAUSE_S = 30


@dataclass
class Progress:
    """How far a run is."""

    total: int
    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Questions without an answer so far."""
        return sum(bool(answer.problem) for answer in self.answers)


async def ask_all(
    client: GatewayClient, questions: Sequence[Question], options: Mapping[str, Any], at_a_time: int
) -> AsyncGenerator[Progress, None]:
    """Ask all questions, ``at_a_time`` in a request; yields after each request.

    A request that fails as a whole ends the run with its :class:`~webui.errors.WebError`; what was answered before has
    been yielded.
    """
    progress = Progress(len(questions))
    for start in range(0, len(questions), at_a_time):
        progress.answers += await _ask(client, questions[start : start + at_a_time], options)
        yield progress


async def _ask(client: GatewayClient, questions: Sequence[Question], options: Mapping[str, Any]) -> list[Answer]:
    reply = await _patiently(client, [question.text for question in questions], options)
    problems = {error["index"]: str(error["message"]) for error in reply.get("errors") or ()}
    return [
        Answer(question, text, problems.get(index, ""))
        for index, (question, text) in enumerate(zip(questions, reply["response"], strict=True))
    ]


async def _patiently(client: GatewayClient, prompts: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Ask again, a few times, where the queue is full: it empties."""
    tries = 0
    while True:
        try:
            return await client.predict(prompts, options)
        except Refused as exc:
            tries += 1
            if exc.status != 429 or tries > _BUSY_RETRIES:
                raise
            pause_s = min(1 if exc.retry_after_s is None else exc.retry_after_s, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)
