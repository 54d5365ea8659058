"""How many prompts the gateway takes on at a time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import QueueFull, TooLarge
from gateway.settings import Limits

_MEASURED_S = 30.0  # the rate is that of the last half minute
_LEAST_RETRY_S, _MOST_RETRY_S = 1, 60


class Admission:
    """Counts the prompts in flight: waiting for the model, or being answered."""

    def __init__(self, limits: Limits) -> None:
        self._max_queue = limits.max_queue
        self._max_batch_prompts = min(limits.max_batch_prompts, limits.max_queue)
        self.prompts_in_flight = 0
        self._finished: deque[tuple[float, int]] = deque()

    @contextmanager
    def places(self, prompts: int) -> Iterator[None]:
        """Hold places for ``prompts`` while the block runs.

        Raises:
            TooLarge: more prompts than one request may ever have.
            QueueFull: too many prompts are in flight now.
        """
        if prompts > self._max_batch_prompts:
            raise TooLarge(f"the request has {prompts} prompts; at most {self._max_batch_prompts} are allowed")
        if self.prompts_in_flight + prompts > self._max_queue:
            raise QueueFull(
                f"{self.prompts_in_flight} prompts are in flight; at most {self._max_queue} are allowed",
                self._seconds_until_free(self.prompts_in_flight + prompts - self._max_queue),
            )
        self.prompts_in_flight += prompts
        try:
            yield
        finally:
            self.prompts_in_flight -= prompts
            self._finished.append((time.monotonic(), prompts))
            self._forget_old()

    def _seconds_until_free(self, places: int) -> int:
        """How long ``places`` places take to become free, at the rate of late. Nothing finished of late: the least."""
        self._forget_old()
        finished = sum(prompts for _, prompts in self._finished)
        if not finished:
            return _LEAST_RETRY_S
        measured_s = max(time.monotonic() - self._finished[0][0], 1.0)
        return min(max(math.ceil(places * measured_s / finished), _LEAST_RETRY_S), _MOST_RETRY_S)

    def _forget_old(self) -> None:
        oldest = time.monotonic() - _MEASURED_S
        while self._finished and self._finished[0][0] < oldest:
            self._finished.popleft()
