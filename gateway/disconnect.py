"""Work that stops when its client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from gateway.errors import ClientGone

T = TypeVar("T")


async def run_while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """Await ``work`` in this task; cancel it when the client disconnects. The body must have been read.

    Raises:
        ClientGone: the client went away.
    """
    worker = asyncio.current_task()
    assert worker is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        worker.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            raise ClientGone("the client went away") from None
        raise
    finally:
        watcher.cancel()
