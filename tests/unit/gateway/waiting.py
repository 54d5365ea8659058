"""Waiting on conditions, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 10.0


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return once ``condition`` holds; fail when that takes too long."""

    async def holds() -> bool:
        return condition()

    await until_async(holds, deadline_s)


async def until_async(condition: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    """The same for a condition that has to be awaited."""
    ends = time.monotonic() + deadline_s
    while not await condition():
        assert time.monotonic() < ends, "the condition did not come true in time"
        await asyncio.sleep(0.005)
