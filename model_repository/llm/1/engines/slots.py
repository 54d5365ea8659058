"""One engine's place in the pool: what it carries, and where it is in its life."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from .base import CallbackEngine, Engine, EngineStatus, GenerationRequest

Recovery = Literal["none", "kept", "restarting", "given up"]


class Changes:
    """Wakes all who wait for something about the engines to change."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return at the next change."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._next)  # the others go on waiting when one of them is cancelled

    def tell(self) -> None:
        changed, self._next = self._next, None
        if changed is not None:
            changed.set_result(None)


class Slot:
    """An engine with the pool's own books about it. ``outstanding`` counts tokens: prompts and what they may yield.

    ``recovery`` is ``"none"`` for an engine that nobody restarts, ``"kept"`` while somebody watches it.
    """

    def __init__(self, engine: Engine, changes: Changes) -> None:
        self.engine = engine
        self.name = engine.name
        self.callbacks = engine if isinstance(engine, CallbackEngine) else None
        self.gpu = engine.status().gpu
        self.outstanding = 0
        self.in_flight = 0
        self.batch_places = math.inf  # rows of batches that it computes at a time; known once it has started
        self.reserved = False  # for prompts that are tried alone
        self.recovery: Recovery = "none"
        self.restarts = 0
        self._changes = changes

    @property
    def is_alive(self) -> bool:
        return self.recovery in ("none", "kept") and self.engine.is_alive()

    @property
    def has_future(self) -> bool:
        """Whether it takes prompts, now or after a restart."""
        return self.recovery in ("kept", "restarting") or self.is_alive

    @contextlib.contextmanager
    def carrying(self, work: int) -> Iterator[Slot]:
        """Count a prompt's work for as long as the block runs."""
        self.take(work)
        try:
            yield self
        finally:
            self.give_back(work)

    def take(self, work: int) -> None:
        """Count a prompt's work, until :meth:`give_back`."""
        self.outstanding += work
        self.in_flight += 1

    def give_back(self, work: int) -> None:
        self.outstanding -= work
        self.in_flight -= 1
        if self.reserved and not self.in_flight:
            self._changes.tell()

    def status(self) -> EngineStatus:
        """The engine's own snapshot, with what only the pool knows."""
        status = self.engine.status()
        states = {"restarting": "restarting", "given up": "dead"}
        return dataclasses.replace(
            status,
            state=states.get(self.recovery, status.state),
            outstanding_tokens=status.outstanding_tokens or self.outstanding,
            restarts=self.restarts,
        )


def expected_work(request: GenerationRequest) -> int:
    """Tokens that a prompt may cost: its own, and the most it may yield."""
    return len(request.token_ids) + request.params.max_tokens * request.params.n
