"""The layer that makes requests take turns, so that health checks are answered at once however many there are."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.turns import Turns

HEALTH_PATHS = frozenset({"/", "/health/live", "/health/ready"})


class TurnsMiddleware:
    """Holds a request back until it is its turn; health checks go first."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in HEALTH_PATHS:
            await self._turns.take()
        await self._app(scope, receive, send)
