"""Starts an engine again after it died: with a back-off, and not for ever."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import StartupError
from ..logs import logger
from .base import RestartableEngine
from .slots import Changes, Slot


@dataclass(frozen=True)
class RestartRule:
    """When an engine is given up: ``failures`` starts in a row failed, or it died ``deaths`` times within ``window_s``.

    The first start follows a death at once; after a failed one the pause begins with ``first_pause_s`` and doubles up
    to ``longest_pause_s``.
    """

    failures: int = 4
    deaths: int = 20
    window_s: float = 600.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0


class RestartHistory:
    """Deaths and failed starts of one engine."""

    def __init__(self, rule: RestartRule, clock: Callable[[], float] = time.monotonic) -> None:
        self._rule = rule
        self._clock = clock
        self._deaths: deque[float] = deque()
        self._failures = 0

    def died(self) -> None:
        self._deaths.append(self._clock())
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1

    def next_pause_s(self) -> float | None:
        """How long to wait before the next start; ``None``: there is to be none."""
        rule = self._rule
        while self._deaths and self._clock() - self._deaths[0] > rule.window_s:
            self._deaths.popleft()
        if self._failures >= rule.failures or len(self._deaths) > rule.deaths:
            return None
        if not self._failures:
            return 0.0
        return float(min(rule.first_pause_s * 2 ** (self._failures - 1), rule.longest_pause_s))


class Supervisor:
    """Watches one engine and starts it again."""

    def __init__(
        self,
        slot: Slot,
        engine: RestartableEngine,
        rule: RestartRule,
        turns: asyncio.Semaphore,
        changes: Changes,
        on_death: Callable[[str], None],
    ) -> None:
        """``engine`` is the slot's, and has been started. ``turns`` are those of engines that start again."""
        self._slot = slot
        self._engine = engine
        self._history = RestartHistory(rule)
        self._turns = turns
        self._changes = changes
        self._on_death = on_death
        slot.recovery = "kept"

    async def run(self) -> None:
        """Until the engine is given up; to be cancelled at the end."""
        slot = self._slot
        try:
            while slot.recovery == "kept":
                await self._wait_death()
                slot.recovery = "kept" if await self._start_again() else "given up"
                self._changes.tell()
        except Exception:
            logger.exception("the engine %s is not watched any longer", slot.name)
            slot.recovery = "given up"
            self._changes.tell()

    async def _wait_death(self) -> None:
        reason = await self._engine.wait_dead()
        logger.error("the engine %s died: %s", self._slot.name, reason)
        self._slot.recovery = "restarting"
        self._on_death(self._slot.name)
        self._history.died()
        self._changes.tell()

    async def _start_again(self) -> bool:
        slot, begun = self._slot, time.monotonic()
        while (pause_s := self._history.next_pause_s()) is not None:
            await asyncio.sleep(pause_s)
            try:
                async with self._turns:
                    await self._engine.start()
            except StartupError as exc:
                logger.error("the engine %s cannot be started again: %s", slot.name, exc)  # noqa: TRY400 - one line
                self._history.failed()
                continue
            slot.restarts += 1
            logger.info("the engine %s is back after %.1f s", slot.name, time.monotonic() - begun)
            return True
        logger.error("the engine %s is given up", slot.name)
        return False
