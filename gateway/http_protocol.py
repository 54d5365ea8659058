"""uvicorn's HTTP protocol with what it leaves out: limits for headers and for clients that do not read, JSON for
requests that are no HTTP, and care for clients that send requests ahead.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.errors import error_body
from gateway.http_parser import RequestParser

logger = logging.getLogger("gateway.request")

HEADERS_TIMEOUT_S = 20.0
MAX_HEADER_BYTES = 64 * 1024
UNREAD_S = 60.0  # the kernel takes and gives megabytes at a time, so shorter would end slow readers, too
_DISCARD_S = 10.0  # for the rest of a body that was refused; closing at once would lose the answer on its way
_LINE_BYTES = len(b": \r\n")
_MAX_WAITING = 16  # requests that a client has sent ahead


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


class _Flow(FlowControl):
    """Reads on while a request runs, as only who reads notices that the client goes away; but not without end.

    ``waiting`` are uvicorn's pairs of a request that was sent ahead and its application.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Collection[tuple[RequestResponseCycle, Any]]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        few = len(self._waiting) < _MAX_WAITING
        if few and sum(len(cycle.body) for cycle, _ in self._waiting) <= HIGH_WATER_LIMIT:
            super().resume_reading()


class _Refusal(NamedTuple):
    status: int
    kind: str
    message: str


class GatewayHttpProtocol(HttpToolsProtocol):
    """One connection.

    A client may send requests ahead: the first of ``_unanswered`` runs, the others wait. Time limits and refusals are
    for the request that is being read, and take effect once those before it are answered.

    ``_patience`` runs while headers, or the rest of a refused body, are awaited; ``_unread`` while the client has to
    read before more can be sent, or before the connection can be closed. ``drop_connection`` in a request's state ends
    the connection at once, as if the client had gone away.
    """

    parser: RequestParser

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = RequestParser(self)
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._refusal: _Refusal | None = None
        self._patience = _Timer(self.loop)
        self._unread = _Timer(self.loop)
        self._awaits_headers = True
        self._header_bytes = 0
        self._unparsed_bytes = 0  # in a header or a line that is not finished

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._patience.start(HEADERS_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.stop()
        self._unread.stop()
        super().connection_lost(exc)
        for cycle in self._unanswered:  # uvicorn tells the last one only
            cycle.disconnected = True
            cycle.message_event.set()
        self._unanswered.clear()
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
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
        if not self._unanswered:
            self._patience.start(HEADERS_TIMEOUT_S, self._headers_late)

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + _LINE_BYTES)
        if self._awaits_headers:  # what comes after a chunked body is read by nobody
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.is_to_be_read_again():
            return
        super().on_headers_complete()
        self._awaits_headers = False
        self._patience.stop()
        self._unanswered.append(self.cycle)
        self.flow.resume_reading()  # uvicorn stops when something is sent ahead

    def on_chunk_header(self) -> None:
        self._unparsed_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.is_to_be_read_again():
            return
        self._patience.stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        self._send_refusal()
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_reading()
            return
        self.flow.resume_reading()  # one less waits
        if not self._unanswered:
            self._expect_rest()

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

    def _expect_rest(self) -> None:
        """Everything is answered: what has begun to come must end in time."""
        if self._awaits_headers:
            self._patience.start(HEADERS_TIMEOUT_S, self._headers_late)
        elif self._has_unfinished_body():
            self._patience.start(_DISCARD_S, self._close)

    def _has_unfinished_body(self) -> bool:
        return not self._awaits_headers and self.cycle.more_body

    def _refuse_headers(self) -> None:
        self._refuse(431, "headers_too_large", f"the headers are larger than {MAX_HEADER_BYTES} bytes")

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Read no more; answer and close when it is this request's turn."""
        if self._refusal is None:
            self._refusal = _Refusal(status, kind, message)
            self._send_refusal()

    def _send_refusal(self) -> None:
        """Answer on the transport itself, as no application can; then close. An answer that has begun is only ended."""
        if self._refusal is None or self._waits_for_others() or self.transport.is_closing():
            return
        running = self._unanswered[0] if self._unanswered else None
        if running is None or not running.response_started:
            status, kind, message = self._refusal
            record = running.scope["state"].get("record") if running else None
            request_id = record.request_id if record else uuid.uuid4().hex
            body = error_body(kind, message, request_id)
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode() + b"connection: close\r\n\r\n" + body)
            logger.info("refused", extra={"fields": {"id": request_id, "status": status, "reason": message}})
        self._close()

    def _waits_for_others(self) -> bool:
        """Whether the request that is being read comes after ones that are not answered yet."""
        return len(self._unanswered) > (1 if self._has_unfinished_body() else 0)

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
