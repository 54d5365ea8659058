"""uvicorn's HTTP protocol with what it leaves out: limits for headers and for clients that do not read, and JSON for
requests that are no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.errors import error_body

logger = logging.getLogger("gateway.request")

HEADERS_TIMEOUT_S = 20.0
MAX_HEADER_BYTES = 64 * 1024
UNREAD_S = 60.0  # the kernel takes and gives megabytes at a time, so shorter would end slow readers, too
_DISCARD_S = 10.0  # for the rest of a body that was refused; closing at once would lose the answer on its way
_LINE_BYTES = len(b": \r\n")


class _Timer:
    """Calls something once, unless it is stopped or started anew before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        self.stop()
        self._handle = self._loop.call_later(seconds, action, *args)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class GatewayHttpProtocol(HttpToolsProtocol):
    """One connection.

    ``_patience`` runs while headers, or the rest of a refused body, are awaited; ``_unread`` while the client has to
    read before more can be sent, or before the connection can be closed. ``drop_connection`` in a request's state ends
    the connection at once, as if the client had gone away.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience = _Timer(self.loop)
        self._unread = _Timer(self.loop)
        self._awaits_headers = True
        self._header_bytes = 0
        self._unparsed_bytes = 0  # in a header or a line that is not finished

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._patience.start(HEADERS_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.stop()
        self._unread.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()

    def eof_received(self) -> None:
        if self._has_unfinished_body() and not self.cycle.response_started:
            self._refuse(400, "invalid_request", "the body is shorter than its Content-Length")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._unread.stop()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["drop_connection"] = self.transport.abort
        self._awaits_headers = True
        self._header_bytes = self._unparsed_bytes = 0
        self._patience.start(HEADERS_TIMEOUT_S, self._headers_late)

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + _LINE_BYTES)
        if self._awaits_headers:  # what comes after a chunked body is read by nobody
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._awaits_headers = False
        self._patience.stop()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        self._unparsed_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._patience.stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reading()
        elif self._has_unfinished_body():
            self._patience.start(_DISCARD_S, self._close)

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def send_400_response(self, msg: str) -> None:
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()
        else:
            self._refuse(400, "invalid_request", "the request is not valid HTTP")

    def _headers_late(self) -> None:
        self._refuse(408, "request_timeout", "the headers did not come in time")

    def _count_header(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the headers are too large")  # ends the parser; uvicorn calls send_400_response

    def _has_unfinished_body(self) -> bool:
        return not self._awaits_headers and self.cycle.more_body

    def _refuse_headers(self) -> None:
        self._refuse(431, "headers_too_large", f"the headers are larger than {MAX_HEADER_BYTES} bytes")

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Answer on the transport itself, as no application can; then close. An answer that has begun is only ended."""
        if self.transport.is_closing():
            return
        running = cast("RequestResponseCycle | None", self.cycle)  # there is none before the first request
        if running is not None and running.response_complete:
            running = None
        if running is None or not running.response_started:
            record = running.scope["state"].get("record") if running else None
            request_id = record.request_id if record else uuid.uuid4().hex
            body = error_body(kind, message, request_id)
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode() + b"connection: close\r\n\r\n" + body)
            logger.info("refused", extra={"fields": {"id": request_id, "status": status, "reason": message}})
        self._close()

    def _close(self) -> None:
        """Close once the client has read what was sent, or does not read any more."""
        if not self.transport.is_closing():
            self.transport.close()
            self._expect_reading()

    def _expect_reading(self) -> None:
        self._unread.start(UNREAD_S, self._check_reading, self.transport.get_write_buffer_size())

    def _check_reading(self, unread_before: int) -> None:
        """Nothing is added while this is watched, so what has not become less has not been read."""
        if self.transport.get_write_buffer_size() < unread_before:
            self._expect_reading()
        else:
            self.transport.abort()
