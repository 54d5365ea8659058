"""A collector of OpenTelemetry traces, over HTTP and gRPC, that keeps what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass
class Collected:
    """Spans in the order of their arrival, and where to send them."""

    endpoint: str = ""
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            self.resources.append(attributes(group.resource))
            for scope in group.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in of.attributes}


@asynccontextmanager
async def http_collector() -> AsyncIterator[Collected]:
    """``POST /v1/traces`` with protobuf bodies; every other request is refused."""
    collected = Collected()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if head.startswith(b"post /v1/traces ") and b"content-type: application/x-protobuf" in head:
            collected.take(ExportTraceServiceRequest.FromString(body))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        collected.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield collected
    finally:
        server.close()
        await server.wait_closed()


class _TraceService(TraceServiceServicer):  # type: ignore[misc]
    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    async def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        self._collected.take(request)
        return ExportTraceServiceResponse()


@asynccontextmanager
async def grpc_collector() -> AsyncIterator[Collected]:
    """The same over gRPC."""
    collected = Collected()
    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(_TraceService(collected), server)
    collected.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collected
    finally:
        await server.stop(grace=None)
