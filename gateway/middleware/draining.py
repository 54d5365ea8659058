"""Shutdown as clients see it: new requests are refused, running ones may finish, then they are ended with an error."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import ShuttingDown


class Drain:
    """The requests that run, and whether more may come."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.refuses = False
        self.aborts = False

    def begin(self) -> None:
        """Refuse new requests from now on."""
        self.refuses = True

    def abort(self) -> None:
        """End the running requests with an error."""
        self.refuses = self.aborts = True
        for task in self._running:
            task.cancel()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no request runs; whether that is so."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return not self._running

    def enter(self, task: asyncio.Task[Any]) -> None:
        self._running.add(task)
        self._idle.clear()

    def leave(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not self._running:
            self._idle.set()


class DrainMiddleware:
    """Keeps count of requests for :class:`Drain` and turns its decisions into 503."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health/live":  # the process lives while it drains
            await self._app(scope, receive, send)
            return
        if self._drain.refuses:
            raise ShuttingDown("the service is shutting down")
        task = asyncio.current_task()
        assert task is not None
        self._drain.enter(task)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if self._drain.aborts:
                raise ShuttingDown("the service shut down before the answer was finished") from None
            raise
        finally:
            self._drain.leave(task)
