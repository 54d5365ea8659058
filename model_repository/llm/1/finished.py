"""The finished prompts of a call, between the tasks that finish them and whoever sends them on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from .engines.base import Sample
from .errors import ModelError
from .prompts import Prompt


@dataclass(frozen=True)
class FinishedPrompt:
    """A prompt's samples, or why there are none. ``position`` is its place in the call."""

    position: int
    prompt: Prompt | None
    samples: Sequence[Sample] = ()
    error: ModelError | None = None


class FinishedPrompts:
    """Those of a call that nobody has taken yet."""

    def __init__(self) -> None:
        self.progress = asyncio.Event()
        self._waiting: list[FinishedPrompt] = []
        self._wanted = 0
        self._complete = asyncio.Event()

    def add(self, done: FinishedPrompt) -> None:
        """Take on one more."""
        self._waiting.append(done)
        self.progress.set()
        if len(self._waiting) == self._wanted:
            self._complete.set()

    def take(self) -> list[FinishedPrompt]:
        """All of them, which are then gone from here."""
        taken, self._waiting = self._waiting, []
        self.progress.clear()
        return taken

    async def group(self, wanted: int, interval_s: float) -> list[FinishedPrompt]:
        """Wait for the first, then ``interval_s`` for others, but no longer than until there are as many as wanted."""
        await self.progress.wait()
        self._wanted = wanted
        self._complete.clear()
        if len(self._waiting) < wanted:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._complete.wait(), interval_s) if interval_s else await asyncio.sleep(0)
        return self.take()
