"""What the two generating routes of OpenAI's API share: their documented errors, and the way to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.disconnect import run_while_connected
from gateway.errors import GatewayError, openai_error_body
from gateway.event_stream import EventStream
from gateway.metrics import Metrics
from gateway.middleware.context import RequestRecord, record_of
from gateway.openai.service import Job, OpenAIService
from gateway.schemas import OpenAIErrorResponse

_STATUSES = (400, 401, 404, 408, 413, 429, 502, 503, 504)
RESPONSES: dict[int | str, dict[str, Any]] = {status: {"model": OpenAIErrorResponse} for status in _STATUSES}
RESPONSES[200] = {
    "description": "The answer as OpenAI's API defines it",
    "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
}


async def answer(service: OpenAIService, metrics: Metrics, job: Job, request: Request, limit_s: float) -> Response:
    """The response for a job: one object, or events."""
    record = record_of(request)
    record.prompts = job.wanted.rows
    if not job.streaming.stream:
        return JsonParts(await run_while_connected(request.receive, service.whole(job, record)))
    return EventStream(
        service.events(job, record),
        partial(_error_event, record),
        limit_s,
        on_first=partial(metrics.note_first_piece, request.url.path, record.started),
    )


class JsonParts(Response):
    """A JSON answer whose parts are sent one after the other: joining hundreds of megabytes would stop the loop."""

    media_type = "application/json"

    def __init__(self, parts: Sequence[bytes]) -> None:
        super().__init__()
        self.headers["content-length"] = str(sum(map(len, parts)))
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for number, part in enumerate(self._parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(self._parts)})


def json_response(body: dict[str, Any]) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), media_type="application/json")


def _error_event(record: RequestRecord, error: GatewayError) -> bytes:
    return b"data: " + openai_error_body(error, record.request_id) + b"\n\n"
