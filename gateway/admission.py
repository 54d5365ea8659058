"""How many prompts the gateway takes on at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import QueueFull, TooLarge
from gateway.settings import Limits


class Admission:
    """Counts the prompts in flight: waiting for the model, or being answered."""

    def __init__(self, limits: Limits) -> None:
        self._max_queue = limits.max_queue
        self._max_batch_prompts = min(limits.max_batch_prompts, limits.max_queue)
        self.prompts_in_flight = 0

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
            raise QueueFull(f"{self.prompts_in_flight} prompts are in flight; at most {self._max_queue} are allowed")
        self.prompts_in_flight += prompts
        try:
            yield
        finally:
            self.prompts_in_flight -= prompts
