"""Rows that end alone: calls that carry single prompts of many callers, each of whom may go away by himself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RowCancellation:
    """The wish that some rows of the call with this key end."""

    row_key: str
    rows: Sequence[int]


class CancellableRows:
    """How the rows of one call are ended."""

    def __init__(self) -> None:
        self._ends: dict[int, Callable[[], None]] = {}
        self._cancelled: set[int] = set()

    def add(self, row: int, end: Callable[[], None]) -> None:
        """Take on a row that ``end`` ends, at once if that was wished before. It may have ended by itself meanwhile."""
        self._ends[row] = end
        if row in self._cancelled:
            end()

    def cancel(self, rows: Sequence[int]) -> None:
        """End rows; those that have not begun, as soon as they have."""
        self._cancelled.update(rows)
        for row in rows:
            if row in self._ends:
                self._ends[row]()


class OpenCalls:
    """The calls with a key that have begun and are not over."""

    def __init__(self) -> None:
        self._calls: dict[str, CancellableRows] = {}

    def enter(self, row_key: str, rows: CancellableRows) -> None:
        """Make a call's rows known by its key, if it has one."""
        if row_key:
            self._calls[row_key] = rows

    def leave(self, row_key: str, rows: CancellableRows) -> None:
        """Forget a call that is over, but not a later one with the same key."""
        if self._calls.get(row_key) is rows:
            del self._calls[row_key]

    def cancel(self, wish: RowCancellation) -> None:
        """End rows of a call; one that is over, or unknown, has none left."""
        rows = self._calls.get(wish.row_key)
        if rows is not None:
            rows.cancel(wish.rows)
