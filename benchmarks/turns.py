"""Callers who ask one thing after the other, all at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any


async def take_turns(callers: Sequence[Callable[[Any], Awaitable[Any]]], items: Iterable[Any]) -> dict[str, Any]:
    """Let every caller ask for its next item when its last one is answered, until there are no more.

    Returns:
        ``seconds`` for all, and ``each`` for every item.
    """
    waiting = iter(items)
    each: list[float] = []

    async def call(ask: Callable[[Any], Awaitable[Any]]) -> None:
        for item in waiting:
            began = time.perf_counter()
            await ask(item)
            each.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(call, callers))
    return {"seconds": time.perf_counter() - began, "each": each}
