"""Answers as server-sent events: heartbeats while nothing comes, an error event when something breaks midway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.disconnect import run_while_connected
from gateway.errors import ClientGone, GatewayError, ShuttingDown, as_gateway_error

logger = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
_HEARTBEAT = b": heartbeat\n\n"  # a comment: clients skip it, proxies see that the connection lives
_READER_SLACK_S = 5.0
_FAREWELL_S = 1.0  # for a client to read why its answer ends, when the service stops


class EventStream(Response):
    """Sends ``events``, each complete with its empty line.

    The head of the answer waits for the first event, so that what goes wrong before it has a status of its own; after
    a heartbeat's time it is sent all the same. ``encode_error`` makes the event for what goes wrong later. The
    connection of a client that has not read everything soon after ``limit_s`` is dropped. ``on_first`` is called at
    the first event.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        encode_error: Callable[[GatewayError], bytes],
        limit_s: float,
        on_first: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"  # nginx would hold events back otherwise
        self._events = events
        self._encode_error = encode_error
        self._limit_s = limit_s
        self._on_first = on_first
        self._lock = asyncio.Lock()
        self._has_head = False
        self._last_sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._last_sent = loop.time()
        drop_connection = scope["state"]["drop_connection"]
        timer = loop.call_later(self._limit_s + _READER_SLACK_S, drop_connection)
        heart = asyncio.create_task(self._beat(send))
        try:
            await self._send_all(receive, send, drop_connection)
        except ClientGone:
            if not self._has_head:
                raise
            scope["state"]["record"].status = ClientGone.status
        finally:
            timer.cancel()
            heart.cancel()

    async def _send_all(self, receive: Receive, send: Send, drop_connection: Callable[[], None]) -> None:
        """Send events and the end, or an error event in its place."""
        error_event = b""
        try:
            await run_while_connected(receive, self._send_events(send))
        except ClientGone:
            raise
        except Exception as exc:
            if not self._has_head:
                raise
            if not isinstance(exc, GatewayError):
                logger.exception("a stream failed unexpectedly")
            error_event = self._encode_error(as_gateway_error(exc))
        except asyncio.CancelledError:
            if not self._has_head:
                raise
            # Who cancels but the client is the service when it stops; swallowed, as the answer ends properly here.
            error = ShuttingDown("the service shut down before the answer was finished")
            try:
                await asyncio.wait_for(self._send_end(send, self._encode_error(error)), _FAREWELL_S)
            except asyncio.TimeoutError:  # a client that reads nothing
                drop_connection()
            return
        await self._send_end(send, error_event)

    async def _send_events(self, send: Send) -> None:
        is_first = True
        async with aclosing(self._events) as events:
            async for event in events:
                if is_first:
                    self._on_first()
                    is_first = False
                await self._send(send, event)

    async def _send(self, send: Send, body: bytes) -> None:
        async with self._lock:
            if not self._has_head:
                self._has_head = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._last_sent = asyncio.get_running_loop().time()
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _send_end(self, send: Send, error_event: bytes) -> None:
        if error_event:
            await self._send(send, error_event)
        async with self._lock:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _beat(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                await asyncio.sleep(self._last_sent + HEARTBEAT_S - loop.time())
                if loop.time() >= self._last_sent + HEARTBEAT_S:
                    await self._send(send, _HEARTBEAT)
