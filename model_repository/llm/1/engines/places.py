"""An engine's places, the prompts it computes at a time, and those of them that are kept for single prompts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from .base import GenerationRequest
from .stats import EngineStats

KEPT_AT_MOST = 16
_KEPT_SHARE = 16  # one in so many


def kept_for_singles(places: int) -> int:
    """How many of an engine's places rows of batches do not get."""
    return min(KEPT_AT_MOST, places // _KEPT_SHARE)


class BatchPlaces:
    """Holds rows of a batch back while others have all places that are for them.

    The engine's own queue puts single prompts first, but that is no help to one that comes while every place is taken
    by a row that runs: it would wait for a whole answer. Rows held back count as waiting in the figures.
    """

    def __init__(self, places: int, stats: EngineStats) -> None:
        self.count = places - kept_for_singles(places)  # for rows of batches
        self._free = asyncio.Semaphore(self.count)
        self._stats = stats

    @contextlib.asynccontextmanager
    async def take(self, request: GenerationRequest) -> AsyncIterator[None]:
        """Wait for a place, if the request is a batch's row (its priority is not the first)."""
        if request.priority == 0:
            yield
            return
        self._stats.held_back += 1
        try:
            await self._free.acquire()
        finally:
            self._stats.held_back -= 1
        try:
            yield
        finally:
            self._free.release()
