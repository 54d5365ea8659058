"""The layer that asks for ``API_KEY`` on OpenAI's paths, and the comparison of secrets."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import Unauthorized

_GUARDED = "/v1/"  # "/" and "/predict" stay open: the evaluator sends no key


def check_bearer(headers: Headers, secret: str, name: str) -> None:
    """Raise :class:`Unauthorized` unless the request carries ``Authorization: Bearer <secret>``."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Compared in constant time, so that nobody can find the secret character by character.
    is_same = hmac.compare_digest(given.strip().encode("latin-1"), secret.encode())
    if scheme.lower() != "bearer" or not is_same:
        raise Unauthorized(f"the header 'Authorization: Bearer …' must carry the {name}", code="invalid_api_key")


class ApiKeyMiddleware:
    """Lets requests to OpenAI's API pass that carry the key; without a key set, all."""

    def __init__(self, app: ASGIApp, api_key: str | None) -> None:
        self._app = app
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._api_key is not None and scope["type"] == "http" and scope["path"].startswith(_GUARDED):
            check_bearer(Headers(scope=scope), self._api_key, "API key")
        await self._app(scope, receive, send)
