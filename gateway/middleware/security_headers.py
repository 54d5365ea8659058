"""The layer that adds headers which keep browsers from doing what nobody wants with an answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_POLICY = b"content-security-policy"
_NOTHING_LOADS = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")


class SecurityHeadersMiddleware:
    """Sends the headers with every answer; a page with a policy of its own keeps that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *_HEADERS]
                if not any(name == _POLICY for name, _ in headers):
                    headers.append(_NOTHING_LOADS)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_headers)
