"""The rows that wait for the transformers engine, how many fit into a batch, and the engine's accounts."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from ..errors import EngineUnavailable
from .transformers_row import Row

# A burst of requests reaches the queue one by one; without this pause the first would be decoded all alone.
_GATHER_S = 0.003


@dataclass(frozen=True)
class BatchLimits:
    """What one batch may hold. Padding counts, since it costs the same.

    ``rows``: samples decoded together. ``prefill_tokens``: prompt tokens read in one forward pass. ``cache_tokens``:
    tokens whose keys and values are kept at the end of the batch. One row alone always fits.
    """

    rows: int
    prefill_tokens: int
    cache_tokens: int

    def admit(self, rows: int, longest_prefix: int, longest_rest: int) -> bool:
        """Whether a batch of that many rows fits, given its longest prefix and largest number of tokens to come."""
        return rows == 1 or (
            rows <= self.rows
            and rows * longest_prefix <= self.prefill_tokens
            and rows * (longest_prefix + longest_rest) <= self.cache_tokens
        )


class RowQueue:
    """A priority queue between the event loop (``submit``, ``cancel``, ``close``) and the worker thread (the rest).

    Rows of smaller ``priority`` go first, then those that came first. A cancelled waiting row leaves the accounts at
    once and the heap when its turn comes.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._heap: list[tuple[int, int, Row]] = []
        self._arrivals = count()
        self._changed = threading.Condition()
        self._is_closed = False
        self.waiting = 0
        self.running = 0
        self.outstanding_tokens = 0

    @property
    def is_closed(self) -> bool:
        """Whether the engine is to end."""
        return self._is_closed

    def submit(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises :class:`EngineUnavailable` after :meth:`close`."""
        with self._changed:
            if self._is_closed:
                raise EngineUnavailable("the engine is stopped")
            for row in rows:
                heapq.heappush(self._heap, (row.request.priority, next(self._arrivals), row))
                self._set_owed(row, len(row.request.token_ids) + row.budget)
            self.waiting += len(rows)
            self._changed.notify()

    def cancel(self, rows: Iterable[Row]) -> None:
        """Mark rows as no longer wanted; running ones leave their batch at its next step."""
        with self._changed:
            for row in rows:
                row.cancelled = True
                if row.phase == "waiting":
                    self._leave(row)

    def close(self) -> None:
        """Take no more rows and wake the worker."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def wait_for_rows(self) -> bool:
        """Block until rows are waiting and a burst has arrived; return ``False`` once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or self._is_closed)
            seen = 0
            while seen < self.waiting < self._limits.rows and not self._is_closed:
                seen = self.waiting
                self._changed.wait(_GATHER_S)
            return not self._is_closed

    def pick(self, running: Sequence[Row] = ()) -> list[Row]:
        """Take the waiting rows that fit into a batch beside ``running``, in their order; never blocks."""
        size = len(running)
        prefix = max((len(row.prefix) for row in running), default=0)
        rest = max((row.remaining for row in running), default=0)
        picked: list[Row] = []
        with self._changed:
            while self._heap:
                row = self._heap[0][2]
                if row.phase == "waiting":
                    prefix, rest = max(prefix, len(row.prefix)), max(rest, row.remaining)
                    if not self._limits.admit(size + len(picked) + 1, prefix, rest):
                        break
                    self._start(row)
                    picked.append(row)
                heapq.heappop(self._heap)
        return picked

    def settle(self, rows: Iterable[Row]) -> list[Row]:
        """Bring the accounts up to date after a step of these rows: those that are not live leave. Return the live."""
        live: list[Row] = []
        with self._changed:
            for row in rows:
                if row.is_live:
                    self._set_owed(row, row.remaining)
                    live.append(row)
                else:
                    self._leave(row)
        return live

    def drain(self) -> list[Row]:
        """Remove and return all waiting rows."""
        with self._changed:
            rows = [row for _, _, row in self._heap if row.phase == "waiting"]
            self._heap.clear()
            for row in rows:
                self._leave(row)
            return rows

    def _start(self, row: Row) -> None:
        row.phase = "running"
        self.waiting -= 1
        self.running += 1

    def _leave(self, row: Row) -> None:
        if row.phase == "waiting":
            self.waiting -= 1
        elif row.phase == "running":
            self.running -= 1
        row.phase = "done"
        self._set_owed(row, 0)

    def _set_owed(self, row: Row, tokens: int) -> None:
        self.outstanding_tokens += tokens - row.owed
        row.owed = tokens
