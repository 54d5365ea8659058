"""Asks all questions as the evaluator does: in one request, one by one, or several at a time, up to the time limit."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

OnAnswered = Callable[[int], None]


@dataclass(frozen=True)
class Plan:
    """How to ask. ``concurrency`` 0 is one request with all questions; 1 is one question after the other."""

    url: str
    concurrency: int
    total_s: float = 360.0
    options: dict[str, Any] = field(default_factory=dict)  # further fields of each request, as max_new_tokens


@dataclass(frozen=True)
class Answer:
    """What came back for one question; ``text`` is empty where ``error`` says why. ``latency_s`` is its request's."""

    text: str
    latency_s: float | None
    error: str = ""


@dataclass(frozen=True)
class Played:
    """All answers in the questions' order, and the seconds from the first request to the last answer."""

    answers: tuple[Answer, ...]
    elapsed_s: float


UNANSWERED = Answer("", None, "no answer before the time was over")


def play(plan: Plan, prompts: Sequence[str], on_answered: OnAnswered = lambda count: None) -> Played:
    """Ask everything; what fails or comes too late is an answer with an error, never an exception."""
    return asyncio.run(_play(plan, prompts, on_answered))


async def _play(plan: Plan, prompts: Sequence[str], on_answered: OnAnswered) -> Played:
    answers = [UNANSWERED] * len(prompts)
    # The limit is the whole run's: no time-out of a single request may be shorter.
    # trust_env: a proxy for the way out must not stand before a service on the same machine.
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=plan.url, timeout=None, limits=limits, trust_env=False) as client:
        began = time.monotonic()
        work = _batch if plan.concurrency == 0 else _singles
        task = asyncio.create_task(work(_Asker(client, plan), prompts, answers, on_answered))
        await asyncio.wait([task], timeout=plan.total_s)
        elapsed_s = time.monotonic() - began
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        elif error := task.exception():
            raise error
    return Played(tuple(answers), elapsed_s)


class _Asker:
    """Sends one request and turns whatever happens into answers."""

    def __init__(self, client: httpx.AsyncClient, plan: Plan) -> None:
        self._client = client
        self._plan = plan

    @property
    def concurrency(self) -> int:
        """How many requests may be on their way at a time."""
        return self._plan.concurrency

    async def ask(self, prompt: str | list[str]) -> list[Answer]:
        """Return one answer for each question of the request."""
        count = 1 if isinstance(prompt, str) else len(prompt)
        began = time.monotonic()
        try:
            reply = await self._client.post("/predict", json={"prompt": prompt, **self._plan.options})
            return read_reply(reply, prompt, time.monotonic() - began)
        except httpx.TransportError as exc:
            return [Answer("", None, f"no answer: {type(exc).__name__}")] * count


async def _batch(asker: _Asker, prompts: Sequence[str], answers: list[Answer], on_answered: OnAnswered) -> None:
    answers[:] = await asker.ask(list(prompts))
    on_answered(len(answers))


async def _singles(asker: _Asker, prompts: Sequence[str], answers: list[Answer], on_answered: OnAnswered) -> None:
    waiting = iter(enumerate(prompts))

    async def worker() -> None:
        for number, prompt in waiting:
            (answers[number],) = await asker.ask(prompt)
            on_answered(1)

    await asyncio.gather(*(worker() for _ in range(min(asker.concurrency, len(prompts)))))


def read_reply(reply: httpx.Response, prompt: str | list[str], latency_s: float) -> list[Answer]:
    """Take the answers out of a reply to ``/predict``; every shape but the documented one is an error."""
    count = 1 if isinstance(prompt, str) else len(prompt)
    if reply.status_code != 200:
        return [Answer("", latency_s, f"status {reply.status_code}: {_message(reply)}")] * count
    try:
        body = reply.json()
        response, errors = body["response"], body.get("errors") or []
        texts = [response] if isinstance(prompt, str) else response
        messages = {error["index"]: str(error.get("message")) for error in errors}
    except (ValueError, KeyError, TypeError, AttributeError):
        return [Answer("", latency_s, "the reply is not the documented JSON")] * count
    if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
        return [Answer("", latency_s, f"the reply has not {count} texts")] * count
    return [Answer(text, latency_s, messages.get(number, "")) for number, text in enumerate(texts)]


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return reply.text[:200]
