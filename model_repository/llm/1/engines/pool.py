"""The engines of this model, and which of them takes the next prompt."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncGenerator, Sequence

from ..errors import EngineUnavailable
from .base import Engine, EngineStatus, GenerationRequest, Sample
from .stats import EngineStats


class EnginePool:
    """Gives each prompt to the live engine with the least outstanding work, counted in tokens."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = list(engines)
        self._outstanding = dict.fromkeys((engine.name for engine in self._engines), 0)
        self._ids = itertools.count(1)

    async def start(self) -> None:
        """Start the engines one after the other, so that each measures the memory its predecessors left."""
        for engine in self._engines:
            await engine.start()

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self._engines))

    @property
    def dtype(self) -> str:
        """The engines' type; they are all alike."""
        return self._engines[0].dtype

    def next_request_id(self) -> str:
        """A request id of our own; a caller's could repeat, and vLLM would mix the two requests up."""
        return f"p{next(self._ids)}"

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        """Run one prompt to its end; see :meth:`Engine.generate`."""
        engine = self._choose()
        work = _expected_work(request)
        self._outstanding[engine.name] += work
        try:
            return await engine.generate(request)
        finally:
            self._outstanding[engine.name] -= work

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        """Run one prompt and yield its samples' new parts; see :meth:`Engine.stream`."""
        engine = self._choose()
        work = _expected_work(request)
        self._outstanding[engine.name] += work
        try:
            async with contextlib.aclosing(engine.stream(request)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._outstanding[engine.name] -= work

    def figures(self) -> dict[str, EngineStats]:
        """The figures of each engine by its name, for the metrics."""
        for engine in self._engines:
            engine.stats.gauges["llm:engine_alive"] = float(engine.is_alive())
        return {engine.name: engine.stats for engine in self._engines}

    def status(self) -> list[EngineStatus]:
        """Snapshots of all engines; the pool's own count of outstanding tokens stands in where an engine has none."""
        found = [engine.status() for engine in self._engines]
        return [
            dataclasses.replace(one, outstanding_tokens=one.outstanding_tokens or self._outstanding[one.name])
            for one in found
        ]

    def _choose(self) -> Engine:
        alive = [engine for engine in self._engines if engine.is_alive()]
        if not alive:
            raise EngineUnavailable("no engine is alive")
        return min(alive, key=lambda engine: self._outstanding[engine.name])


def _expected_work(request: GenerationRequest) -> int:
    return len(request.token_ids) + request.params.max_tokens * request.params.n
