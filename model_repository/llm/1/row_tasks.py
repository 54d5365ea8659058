"""Rows that end alone: calls that carry single prompts of many callers, each of whom may go away by himself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class RowCancellation:
    """The wish that some rows of the call with this key end."""

    row_key: str
    rows: Sequence[int]


class RowTasks:
    """The tasks of one call's rows."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()

    def add(self, row: int, task: asyncio.Task[None]) -> None:
        """Take on the task of a row; it is ended at once if that was wished before."""
        self._tasks[row] = task
        if row in self._cancelled:
            task.cancel()

    def cancel(self, rows: Sequence[int]) -> None:
        """End rows; those that have no task yet, when they get one."""
        self._cancelled.update(rows)
        for row in rows:
            if row in self._tasks:
                self._tasks[row].cancel()

    def was_cancelled(self, row: int) -> bool:
        """Whether the row was ended by :meth:`cancel`, not with the whole call."""
        return row in self._cancelled


class OpenCalls:
    """The calls with a key that run now."""

    def __init__(self) -> None:
        self._calls: dict[str, RowTasks] = {}

    @contextmanager
    def entered(self, row_key: str, tasks: RowTasks) -> Iterator[None]:
        """Make a call's rows known by its key, if it has one, while the block runs."""
        if row_key:
            self._calls[row_key] = tasks
        try:
            yield
        finally:
            self._calls.pop(row_key, None)

    def cancel(self, wish: RowCancellation) -> None:
        """End rows of a call; one that is over, or unknown, has none left."""
        tasks = self._calls.get(wish.row_key)
        if tasks is not None:
            tasks.cancel(wish.rows)
