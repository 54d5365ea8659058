"""One prompt from the pool to its end, without a task of its own for as long as nothing goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..errors import EngineDied
from .base import Done, GenerationRequest, Outcome, Sample
from .slots import Slot, expected_work

Generate = Callable[[GenerationRequest, int], Awaitable[list[Sample]]]


class PromptRun:
    """Begins at once on an engine that takes callbacks.

    Where there is none, or the engine dies, a task goes on with ``generate``, which waits, restarts and isolates;
    its second argument counts the engines that died with the prompt.
    """

    __slots__ = ("_done", "_generate", "_is_over", "_request", "_slot", "_task", "_work")

    def __init__(self, request: GenerationRequest, done: Done, slot: Slot | None, generate: Generate) -> None:
        self._request = request
        self._done = done
        self._generate = generate
        self._slot: Slot | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        if slot is None or slot.callbacks is None:
            self._go_on(0)
        else:
            self._slot, self._work = slot, expected_work(request)
            slot.take(self._work)
            slot.callbacks.begin(request, self._ended)

    def cancel(self) -> bool:
        """End it. False if it has ended already; otherwise ``done`` is not told."""
        if self._is_over:
            return False
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        elif self._slot is not None and self._slot.callbacks is not None:
            self._slot.callbacks.cancel(self._request.request_id)
            self._leave()
        return True

    def _ended(self, outcome: Outcome) -> None:
        self._leave()
        if isinstance(outcome, EngineDied):
            self._go_on(1)
        else:
            self._is_over = True
            self._done(outcome)

    def _leave(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.give_back(self._work)

    def _go_on(self, deaths: int) -> None:
        self._task = asyncio.get_running_loop().create_task(self._in_task(deaths))

    async def _in_task(self, deaths: int) -> None:
        outcome: Outcome
        try:
            outcome = await self._generate(self._request, deaths)
        except Exception as exc:  # noqa: BLE001 - told to whom it concerns
            outcome = exc
        self._is_over = True
        self._done(outcome)
