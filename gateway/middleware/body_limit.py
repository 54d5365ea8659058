"""Bodies that are too large or too slow."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import BodyTimeout, TooLarge

BODY_TIMEOUT_S = 60.0


class BodyLimitMiddleware:
    """Ends a request whose body is over ``max_bytes``, announced or chunked, or takes longer than ``timeout_s``."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._check_size(_content_length(scope))
        record = scope["state"]["record"]
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        is_complete = False

        async def limited_receive() -> Message:
            nonlocal is_complete
            if is_complete:
                return await receive()  # only a disconnect can follow, and it may take its time
            message = await _receive_until(deadline, receive)
            is_complete = not message.get("more_body", False)
            record.bytes_in += len(message.get("body", b""))
            self._check_size(record.bytes_in)
            return message

        await self._app(scope, limited_receive, send)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge(f"the body is larger than {self._max_bytes} bytes")


def _content_length(scope: Scope) -> int:
    """The announced size; the HTTP parser has refused what is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


async def _receive_until(deadline: float, receive: Receive) -> Message:
    """``asyncio.wait_for`` without the task that it makes before Python 3.12, as every request comes this way."""
    task = asyncio.current_task()
    assert task is not None
    late = False

    def end() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_at(deadline, end)
    try:
        return await receive()
    except asyncio.CancelledError:
        if late:
            raise BodyTimeout("the body did not come in time") from None
        raise
    finally:
        timer.cancel()
