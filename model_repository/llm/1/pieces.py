"""Pieces of streamed rows, gathered into responses."""

from __future__ import annotations

import asyncio

from .rows import Row


async def ready_pieces(pieces: asyncio.Queue[list[Row] | None]) -> tuple[list[list[Row]], int]:
    """Wait for a piece and take all that are there by then; also how many prompts have ended.

    Pieces of one moment make one response, each row once: a response for every row and step would keep all others
    waiting for the thread that sends them. Errors come in a response of their own, as they may end the request.
    """
    merged: dict[int, Row] = {}
    errors: list[Row] = []
    ended = 0
    rows = await pieces.get()
    while True:
        if rows is None:
            ended += 1
        for row in rows or ():
            if row.error is not None:
                errors.append(row)
            elif row.index in merged:
                merged[row.index].append(row)
            else:
                merged[row.index] = row
        if pieces.empty():
            return [group for group in (list(merged.values()), errors) if group], ended
        rows = pieces.get_nowait()
