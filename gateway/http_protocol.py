"""uvicorn's HTTP protocol with what it leaves out: limits for headers, and JSON for requests that are no HTTP."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import error_body

HEADERS_TIMEOUT_S = 20.0
MAX_HEADER_BYTES = 64 * 1024
_DISCARD_S = 10.0  # for the rest of a body that was refused; closing at once would lose the answer on its way


class GatewayHttpProtocol(HttpToolsProtocol):
    """One connection. ``_timer`` runs while headers, or the rest of a refused body, are awaited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._awaits_headers = True
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer(HEADERS_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._awaits_headers and not self.transport.is_closing():
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(431, "headers_too_large", f"the headers are larger than {MAX_HEADER_BYTES} bytes")

    def eof_received(self) -> None:
        if self._has_unfinished_body() and not self.cycle.response_started:
            self._refuse(400, "invalid_request", "the body is shorter than its Content-Length")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaits_headers = True
        self._header_bytes = 0
        self._start_timer(HEADERS_TIMEOUT_S, self._headers_late)

    def on_headers_complete(self) -> None:
        self._awaits_headers = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_unfinished_body() and not self.transport.is_closing():
            self._start_timer(_DISCARD_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_request", "the request is not valid HTTP")

    def _headers_late(self) -> None:
        self._refuse(408, "request_timeout", "the headers did not come in time")

    def _has_unfinished_body(self) -> bool:
        return not self._awaits_headers and self.cycle.more_body

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Answer on the transport itself, as there is no request an application could answer; then close."""
        request_id = uuid.uuid4().hex
        body = error_body(kind, message, request_id)
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _start_timer(self, seconds: float, action: Any) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, action)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
