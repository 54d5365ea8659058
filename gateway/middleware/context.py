"""The layer around all that can fail: request id, a request's log line, and every error's way to its JSON answer."""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ClientGone, GatewayError, error_response
from gateway.metrics import Metrics
from gateway.middleware.turns import HEALTH_PATHS

logger = logging.getLogger("gateway.request")

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


@dataclass
class RequestRecord:
    """What is known about one request, for its log line. Sizes in bytes, counts in prompts and tokens."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    prompts: int | None = None
    failed_prompts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def fields(self, scope: Scope) -> dict[str, Any]:
        found: dict[str, Any] = {
            "id": self.request_id,
            # As it stands in the request line: percent-encoded, so that nobody can write lines of their own.
            "route": f"{scope['method']} {scope.get('raw_path', b'').decode('ascii', 'replace')}",
            "status": self.status,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        if self.prompts is not None:
            found["prompts"] = self.prompts
            found["failed_prompts"] = self.failed_prompts
            found["prompt_tokens"] = self.prompt_tokens
            found["completion_tokens"] = self.completion_tokens
        if trace_id := scope["state"].get("trace_id"):
            found["trace"] = trace_id
        found["ms"] = round((time.monotonic() - self.started) * 1000, 1)
        return found


def record_of(connection: HTTPConnection) -> RequestRecord:
    """The record that this layer made for the request."""
    record: RequestRecord = connection.scope["state"]["record"]
    return record


class ContextMiddleware:
    """Keeps a caller's sane ``X-Request-Id`` or makes one, and sends it with every answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope))
        scope.setdefault("state", {})["record"] = record
        id_header = (b"x-request-id", record.request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message.get("headers", ()), id_header]
            else:
                record.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as exc:
            if not isinstance(exc, (GatewayError, ClientDisconnect)):
                logger.exception("request %s failed unexpectedly", record.request_id)
            if not isinstance(exc, (ClientGone, ClientDisconnect)):
                record.failed_prompts = record.prompts or 0
            if record.status:
                raise  # the answer has begun: all that is left is to break the connection
            await error_response(exc, record.request_id, scope["path"])(scope, receive, send_with_id)
        finally:
            _log(record, scope)
            _count(self._metrics, record, scope)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex


def _log(record: RequestRecord, scope: Scope) -> None:
    # Machines ask for health every few seconds.
    level = logging.DEBUG if scope["path"] in HEALTH_PATHS else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(level, "request", extra={"fields": record.fields(scope)})


def _count(metrics: Metrics, record: RequestRecord, scope: Scope) -> None:
    # Routes, not paths: whoever tries a thousand addresses must not make a thousand time series.
    path = getattr(scope.get("route"), "path", "other")
    method = scope["method"] if path != "other" else "other"
    metrics.requests.labels(method, path, record.status).inc()
    metrics.seconds.labels(path).observe(time.monotonic() - record.started)
    metrics.prompt_tokens.inc(record.prompt_tokens)
    metrics.completion_tokens.inc(record.completion_tokens)
