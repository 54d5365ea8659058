"""Fairness on the event loop: of many requests that could run at once, a few at a time do.

A thousand requests that arrive together would otherwise all run their first steps before the loop looks at its
sockets again, and ``GET /`` would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque

PER_TURN = 8  # a few milliseconds of work


class Turns:
    """Lets ``per_turn`` callers pass in one iteration of the event loop, the others in the next ones, in order."""

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = per_turn
        self._passed = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Return when it is the caller's turn: at once, unless many came before it in this iteration."""
        loop = asyncio.get_running_loop()
        if self._passed == 0 and not self._waiting:
            loop.call_soon(self._next_turn)
        if self._passed < self._per_turn and not self._waiting:
            self._passed += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_turn(self) -> None:
        self._passed = 0
        while self._waiting and self._passed < self._per_turn:
            turn = self._waiting.popleft()
            if not turn.done():  # its request may have been cancelled
                turn.set_result(None)
                self._passed += 1
        if self._passed:
            asyncio.get_running_loop().call_soon(self._next_turn)
