"""The layer that gives each request a span. It is there only while traces are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.turns import HEALTH_PATHS
from gateway.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_SERVER_ERRORS = 500


class TracingMiddleware:
    """Names the span by the route and tells it what the log line of the request says. Health checks get none."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        with self._tracing.request(scope["method"], scope["path"], scope["headers"]) as span:
            scope.setdefault("state", {})["trace_id"] = f"{span.get_span_context().trace_id:032x}"
            try:
                await self._app(scope, receive, send)
            finally:
                _describe(span, scope)


def _describe(span: Span, scope: Scope) -> None:
    from opentelemetry.trace import StatusCode

    record = scope["state"].get("record")
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    if record is None:
        return
    span.set_attribute("http.response.status_code", record.status)
    span.set_attribute("gateway.request_id", record.request_id)
    if record.status >= _SERVER_ERRORS:
        span.set_status(StatusCode.ERROR)
    if record.prompts is not None:
        span.set_attribute("gateway.prompts", record.prompts)
        span.set_attribute("gateway.failed_prompts", record.failed_prompts)
        span.set_attribute("gen_ai.usage.input_tokens", record.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", record.completion_tokens)
