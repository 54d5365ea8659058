"""OpenTelemetry: a span for each request, and one below it for each call of Triton.

The library is imported when an endpoint is set and not otherwise. Spans are sent by a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError
from gateway.settings import OtlpProtocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span


Metadata = Sequence[tuple[str, str]]
CallTrace = Callable[[str, Any], AbstractContextManager["Metadata | None"]]
"""Takes a server's address and the request for it; gives the metadata to be sent with it."""

_FLUSH_S = 5.0  # for the last spans when the service stops
_SERVICE, _METHOD = "inference.GRPCInferenceService", "ModelStreamInfer"


def untraced(url: str, request: Any) -> AbstractContextManager[Metadata | None]:
    """A call without a span."""
    return nullcontext()


class Tracing:
    """Makes spans and sends them to ``endpoint``; nothing starts before :meth:`open`."""

    def __init__(self, endpoint: str, protocol: OtlpProtocol, model: str) -> None:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = OTELResourceDetector().detect()  # OTEL_SERVICE_NAME and the like
        resource = Resource.create({"service.name": "llm-gateway", "gen_ai.request.model": model}).merge(named)
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracer = self._provider.get_tracer("gateway")
        self._propagator = TraceContextTextMapPropagator()
        self._endpoint = endpoint
        self._protocol = protocol

    async def open(self) -> None:
        """Start sending."""
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider.add_span_processor(BatchSpanProcessor(_exporter(self._endpoint, self._protocol)))

    async def close(self) -> None:
        """Send what is left, as far as that goes within a few seconds: a collector may be away."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # too late: the loop is closed
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="tracing-shutdown", daemon=True).start()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(done.wait(), _FLUSH_S)

    @contextmanager
    def request(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Iterator[Span]:
        """The current span while one HTTP request is answered; its parent is the caller's, if that sent one."""
        from opentelemetry.trace import SpanKind

        wanted = (b"traceparent", b"tracestate")
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in wanted}
        attributes = {"http.request.method": method, "url.path": path}
        parent = self._propagator.extract(carrier)
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER, attributes) as span:
            yield span

    @contextmanager
    def call(self, url: str, request: Any) -> Iterator[Metadata | None]:
        """The span of one call of Triton, below the current one; without one (a probe) there is none.

        Never made the current span: a generator would leave it behind in its caller's context.
        """
        from opentelemetry import trace

        if not trace.get_current_span().get_span_context().is_valid:
            yield None
            return
        span = self._tracer.start_span(
            f"{_SERVICE}/{_METHOD}", kind=trace.SpanKind.CLIENT, attributes=_call_attributes(url, request)
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        try:
            yield tuple(carrier.items())
        except (GeneratorExit, asyncio.CancelledError):
            span.set_attribute("error.type", "cancelled")
            raise
        except GatewayError as exc:
            span.set_attribute("error.type", exc.type)
            span.set_status(trace.StatusCode.ERROR)
            raise
        finally:
            span.end()


def _call_attributes(url: str, request: Any) -> dict[str, Any]:
    host, _, port = url.rpartition(":")
    return {
        "rpc.system": "grpc",
        "rpc.service": _SERVICE,
        "rpc.method": _METHOD,
        "server.address": host,
        "server.port": int(port),
        "triton.model": request.model_name,
        "triton.rows": request.inputs[0].shape[0] if request.inputs else 0,
    }


def _exporter(endpoint: str, protocol: OtlpProtocol) -> SpanExporter:
    """Headers, time-outs, compression and certificates are read from ``OTEL_EXPORTER_OTLP_*`` by the library."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
