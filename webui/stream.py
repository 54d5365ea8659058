"""Something that comes piece by piece, can be stopped, and is read as fast as it comes, however slowly it is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TypeVar

P = TypeVar("P")


class Stops:
    """One running answer (or batch) a session, by the session's name; starting another one stops the first."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def start(self, session: str) -> asyncio.Event:
        """The event that stops the answer which begins now."""
        self.stop(session)
        event = self._events[session] = asyncio.Event()
        return event

    def stop(self, session: str) -> None:
        """Stop the session's answer, if one runs."""
        if event := self._events.pop(session, None):
            event.set()

    def finish(self, session: str, event: asyncio.Event) -> None:
        """The answer of this event has ended by itself."""
        if self._events.get(session) is event:
            del self._events[session]


async def merged(source: AsyncGenerator[P, None], stop: asyncio.Event) -> AsyncGenerator[list[P], None]:
    """What has come since the last time, as soon as there is anything; ends early when ``stop`` is set.

    A page shows a piece more slowly than a model makes it: taken together, pieces never pile up. The source is closed
    at the end, however it comes. Raises what the source raises, after the pieces before it.
    """
    pieces: asyncio.Queue[P | None] = asyncio.Queue()
    reader = asyncio.create_task(_read(source, pieces))
    stopper = asyncio.create_task(_end_when(stop, pieces))
    try:
        ended = False
        while not ended:
            batch = [await pieces.get()]
            while not pieces.empty():
                batch.append(pieces.get_nowait())
            ended = None in batch or stop.is_set()
            if got := [piece for piece in batch if piece is not None]:
                yield got
        if not stop.is_set():
            await reader
    finally:
        stopper.cancel()
        reader.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await reader


async def _read(source: AsyncGenerator[P, None], pieces: asyncio.Queue[P | None]) -> None:
    try:
        async for piece in source:
            pieces.put_nowait(piece)
    finally:
        await source.aclose()
        pieces.put_nowait(None)


async def _end_when(stop: asyncio.Event, pieces: asyncio.Queue[P | None]) -> None:
    await stop.wait()
    pieces.put_nowait(None)
