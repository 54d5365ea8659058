"""The finished prompts of a call, between the engines that finish them and whoever sends them on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from .engines.base import Sample
from .errors import ModelError
from .prompts import Prompt


class FinishedPrompt(msgspec.Struct, frozen=True):
    """A prompt's samples, or why there are none. ``position`` is its place in the call."""

    position: int
    prompt: Prompt | None
    samples: Sequence[Sample] = ()
    error: ModelError | None = None


class FinishedPrompts:
    """Those of a call that nobody has taken yet."""

    def __init__(self) -> None:
        self._progress = asyncio.Event()
        self._waiting: list[FinishedPrompt] = []
        self._wanted = 0
        self._complete = asyncio.Event()

    def add(self, done: FinishedPrompt) -> None:
        """Take on one more."""
        self._waiting.append(done)
        self._progress.set()
        if len(self._waiting) == self._wanted:
            self._complete.set()

    async def group(self, wanted: int, interval_s: float | None) -> list[FinishedPrompt]:
        """Wait for the first, then ``interval_s`` for others, but no longer than until there are as many as wanted.

        In the order in which they finished. Without an interval all that are wanted are waited for, and come in the
        order of their positions.
        """
        await self._progress.wait()
        self._wanted = wanted
        self._complete.clear()
        if len(self._waiting) < wanted:
            with contextlib.suppress(asyncio.TimeoutError):
                await (asyncio.sleep(0) if interval_s == 0 else asyncio.wait_for(self._complete.wait(), interval_s))
        group, self._waiting = self._waiting, []
        self._progress.clear()
        return group if interval_s is not None else sorted(group, key=lambda done: done.position)
