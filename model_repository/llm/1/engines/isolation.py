"""Prompts under suspicion: each is tried alone on an engine, so that it harms nobody and is blamed for nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from ..errors import EngineUnavailable
from .slots import Changes, Slot

# A prompt that was in flight when this many engines died is tried alone; if that one dies too, the prompt is given up.
SUSPECT_AFTER = 2


class Ward:
    """Keeps one engine for suspects for as long as there are any; they go one after the other."""

    def __init__(self, slots: Sequence[Slot], changes: Changes) -> None:
        self._slots = slots
        self._changes = changes
        self._turn = asyncio.Lock()
        self._suspects = 0
        self._slot: Slot | None = None

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[Slot]:
        """An engine without any other prompt. Raises :class:`EngineUnavailable` if none is left."""
        self._suspects += 1
        try:
            async with self._turn:
                yield await self._vacant()
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._release()

    def reserve(self) -> None:
        """Take an engine out of use for the others, if a suspect needs one and one is alive."""
        if not self._suspects or (self._slot is not None and self._slot.is_alive):
            return
        self._release()
        alive = [slot for slot in self._slots if slot.is_alive]
        if alive:
            self._slot = min(alive, key=lambda slot: slot.outstanding)
            self._slot.reserved = True

    async def _vacant(self) -> Slot:
        while True:
            self.reserve()
            if self._slot is None and not any(slot.has_future for slot in self._slots):
                raise EngineUnavailable("no engine is alive")
            if self._slot is not None and not self._slot.in_flight:
                return self._slot
            await self._changes.wait()

    def _release(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.reserved = False
            self._changes.tell()
