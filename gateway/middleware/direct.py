"""The innermost layer: the way to hot routes that leaves out what FastAPI does for each request.

Those routes read their bodies and make their responses themselves; FastAPI knows them too, for the OpenAPI document and
for every method but theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class _Route(NamedTuple):
    """What metrics and spans ask a route for."""

    path: str


class DirectMiddleware:
    """Calls the endpoint for ``(method, path)`` at once; everything else goes on to the application."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app = app
        self._endpoints = {place: (_Route(place[1]), endpoint) for place, endpoint in endpoints.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], endpoint = found
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)
