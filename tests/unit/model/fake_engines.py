"""Engines as code: each does one thing that a test wants to see the pool, the generator or the service deal with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from llm_model.engines.base import EngineStatus, GenerationRequest, Sample
from llm_model.engines.stats import EngineStats

Answer = Callable[[GenerationRequest], Awaitable[list[Sample]]]


async def echo(request: GenerationRequest) -> list[Sample]:
    """Answer with the prompt's last tokens, as the echo engine does."""
    tokens = request.token_ids[-request.params.max_tokens :]
    return [Sample(index, list(tokens), finish_reason="length") for index in range(request.params.n)]


async def for_ever(request: GenerationRequest) -> list[Sample]:
    """Never answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


def raising(error: BaseException) -> Answer:
    """Fail with ``error``."""

    async def answer(request: GenerationRequest) -> list[Sample]:
        raise error

    return answer


class ScriptedEngine:
    """Answers with ``answer``, which a test may replace at any time. Keeps the requests and counts what runs."""

    def __init__(self, name: str = "scripted-0", answer: Answer = echo) -> None:
        self.name = name
        self.stats = EngineStats()
        self.answer = answer
        self.alive = True
        self.requests: list[GenerationRequest] = []
        self.running = 0
        self.aborted = 0
        self.starts = self.stops = 0

    @property
    def dtype(self) -> str:
        return "float32"

    async def start(self) -> None:
        self.starts += 1

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        self.requests.append(request)
        self.running += 1
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        for sample in await self.generate(request):
            yield [sample]

    def is_alive(self) -> bool:
        return self.alive

    def status(self) -> EngineStatus:
        return EngineStatus(self.name, "ready" if self.alive else "dead", running=self.running)

    async def stop(self) -> None:
        self.stops += 1


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Let the event loop work until the condition holds."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition was not met in time"
        await asyncio.sleep(0)
