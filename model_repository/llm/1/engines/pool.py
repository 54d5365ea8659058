"""The engines of this model: which of them takes the next prompt, and what becomes of prompts whose engine dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence

import msgspec

from ..errors import EngineDied, EngineUnavailable, GenerationFailed
from ..logs import logger
from .base import Done, Engine, EngineStatus, GenerationRequest, RestartableEngine, Sample
from .isolation import SUSPECT_AFTER, Ward
from .placement import Placement, takers
from .prompt_run import PromptRun
from .slots import Changes, Slot, expected_work
from .stats import EngineStats
from .supervision import RestartRule, Supervisor

_POISONOUS = f"the prompt was given up: {SUSPECT_AFTER + 1} engines died with it, the last one with no other prompt"


class EnginePool:
    """Gives each prompt to a live engine, restarts dead ones, and moves their prompts.

    A prompt of which nothing was delivered goes to another engine, or waits for the one that is restarted; its
    caller's cancellation ends the wait. One whose parts were delivered ends with :class:`EngineUnavailable`. One that
    was in flight at two deaths is tried alone (:mod:`isolation`), and given up if that engine dies too.
    """

    def __init__(self, engines: Sequence[Engine], side_by_side: int = 1, rule: RestartRule | None = None) -> None:
        """``side_by_side`` engines start at a time, equally many on each GPU.

        More than one there if each knows its memory without measuring. Engines of several GPUs come in turns.
        """
        self._changes = Changes()
        self._slots = [Slot(engine, self._changes) for engine in engines]
        self._placement = Placement()
        self._ward = Ward(self._slots, self._changes)
        self._side_by_side = side_by_side
        self._rule = rule or RestartRule()
        self._supervisors: list[asyncio.Task[None]] = []
        self._ids = itertools.count(1)

    async def start(self) -> None:
        """Start the engines. Raises :class:`StartupError` if one cannot; none is left running then."""
        try:
            for first in range(0, len(self._slots), self._side_by_side):
                await _start_together([slot.engine for slot in self._slots[first : first + self._side_by_side]])
        except BaseException:
            await self.stop()
            raise
        for slot in self._slots:
            slot.batch_places = slot.engine.status().batch_places or math.inf
        self._supervise()

    def _supervise(self) -> None:
        turns = self._restart_turns()
        for slot in self._slots:
            if isinstance(slot.engine, RestartableEngine):
                forget = self._placement.forget
                supervisor = Supervisor(slot, slot.engine, self._rule, turns[slot.gpu], self._changes, forget)
                self._supervisors.append(asyncio.ensure_future(supervisor.run()))

    def _restart_turns(self) -> dict[str | None, asyncio.Semaphore]:
        """For each GPU as many starts at a time as at first: one that measures would see what the others take."""
        gpus = {slot.gpu for slot in self._slots}
        return {gpu: asyncio.Semaphore(max(1, self._side_by_side // len(gpus))) for gpu in gpus}

    async def stop(self) -> None:
        supervisors, self._supervisors = self._supervisors, []
        for supervisor in supervisors:
            supervisor.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)
        await asyncio.gather(*(slot.engine.stop() for slot in self._slots))

    @property
    def dtype(self) -> str:
        """The engines' type; they are all alike."""
        return self._slots[0].engine.dtype

    def next_request_id(self) -> str:
        """A request id of our own; a caller's could repeat, and vLLM would mix the two requests up."""
        return f"p{next(self._ids)}"

    def begin_all(self, prompts: Iterable[tuple[GenerationRequest, Done]], *, on_each: bool = False) -> list[PromptRun]:
        """Run prompts to their ends and tell each ``done``, also what :meth:`generate` raises; nobody need wait.

        Which engines take prompts is asked once: it changes between turns of the event loop only. ``on_each``: see
        :meth:`generate_on_each`.
        """
        if on_each:
            return [PromptRun(prompt, done, None, self.generate_on_each) for prompt, done in prompts]
        free, choose = self._takers(), self._placement.choose
        return [PromptRun(prompt, done, choose(free, prompt), self.generate) for prompt, done in prompts]

    async def generate(self, request: GenerationRequest, deaths: int = 0) -> list[Sample]:
        """Run one prompt to its end; see :meth:`Engine.generate`. ``deaths``: engines that died with it before."""
        while True:
            async with self._seat(request, deaths) as engine:
                try:
                    return await engine.generate(request)
                except EngineDied as exc:
                    deaths = _one_more(deaths, exc)

    async def generate_on_each(self, request: GenerationRequest, deaths: int = 0) -> list[Sample]:
        """Run one prompt on every engine that takes prompts, and return what one of them answered, once all have ended.

        Where none answers, the prompt is run as any other, with ``deaths``; see :meth:`generate`.
        """
        for samples in await asyncio.gather(*(self._generate_on(slot, request) for slot in self._takers())):
            if samples is not None:
                return samples
        return await self.generate(request, deaths)

    async def _generate_on(self, slot: Slot, request: GenerationRequest) -> list[Sample] | None:
        """Run a copy of a prompt on this engine; ``None``, with the reason in the log, if it cannot."""
        copy = msgspec.structs.replace(request, request_id=self.next_request_id())
        try:
            with slot.carrying(expected_work(copy)):
                return await slot.engine.generate(copy)
        except Exception as exc:  # noqa: BLE001 - what the others answer counts
            logger.warning("the engine %s did not answer a prompt for all of them: %s", slot.name, exc)
            return None

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        """Run one prompt and yield its samples' new parts; see :meth:`Engine.stream`."""
        deaths = 0
        delivered = False
        while True:
            async with self._seat(request, deaths) as engine:
                try:
                    async with contextlib.aclosing(engine.stream(request)) as pieces:
                        async for piece in pieces:
                            delivered = True
                            yield piece
                        return
                except EngineDied as exc:
                    if delivered:
                        raise EngineUnavailable("the engine died in the middle of the answer") from exc
                    deaths = _one_more(deaths, exc)

    @contextlib.asynccontextmanager
    async def _seat(self, request: GenerationRequest, deaths: int) -> AsyncIterator[Engine]:
        """An engine for a prompt that was in flight at ``deaths`` deaths; its work is counted until the end."""
        if deaths >= SUSPECT_AFTER:
            async with self._ward.alone() as slot:
                with slot.carrying(expected_work(request)):
                    yield slot.engine
        else:
            with (await self._choose(request)).carrying(expected_work(request)) as slot:
                yield slot.engine

    async def _choose(self, request: GenerationRequest) -> Slot:
        """The engine for a prompt, waiting while all that are left are being restarted or kept for suspects."""
        while True:
            if (slot := self._placement.choose(self._takers(), request)) is not None:
                return slot
            if not any(slot.has_future for slot in self._slots):
                raise EngineUnavailable("no engine is alive")
            await self._changes.wait()

    def _takers(self) -> list[Slot]:
        self._ward.reserve()  # before an engine that has come back fills up again
        return takers(self._slots)

    def figures(self) -> dict[str, EngineStats]:
        """The figures of each engine by its name, for the metrics."""
        for slot in self._slots:
            slot.engine.stats.gauges["llm:engine_alive"] = float(slot.is_alive)
            slot.engine.stats.counters["llm:engine_restarts_total", ()] = float(slot.restarts)
        return {slot.name: slot.engine.stats for slot in self._slots}

    def status(self) -> list[EngineStatus]:
        """Snapshots of all engines; never blocks."""
        return [slot.status() for slot in self._slots]


def _one_more(deaths: int, exc: EngineDied) -> int:
    if deaths >= SUSPECT_AFTER:
        raise GenerationFailed(_POISONOUS) from exc
    return deaths + 1


async def _start_together(engines: Sequence[Engine]) -> None:
    """Start engines side by side; the first that fails ends the others' start."""
    starts = [asyncio.ensure_future(engine.start()) for engine in engines]
    try:
        await asyncio.gather(*starts)
    finally:
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
