"""OpenTelemetry: spans of requests and of calls of Triton, the trace context taken and passed on, nothing while off."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.fakes.otlp_collector import attributes, grpc_collector, http_collector
from tests.fakes.triton_server import FakeTriton, hang, respond
from tests.integration.gateway.harness import running_gateway
from tests.integration.gateway.test_faults import GONE

ROOT = Path(__file__).resolve().parents[3]
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALL = "inference.GRPCInferenceService/ModelStreamInfer"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_request_and_its_call_of_triton_are_spans_of_the_callers_trace(
    triton: FakeTriton, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    collector = grpc_collector() if protocol == "grpc" else http_collector()
    settings = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "SERVED_MODEL_NAME": "course"}
    async with collector as collected:
        async with running_gateway(triton, OTEL_EXPORTER_OTLP_ENDPOINT=collected.endpoint, **settings) as gateway:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "a=b", "X-Request-Id": "course-7"}
            with caplog.at_level(logging.INFO, "gateway.request"):
                await gateway.client.post("/predict", json={"prompt": ["a", ""]}, headers=headers)
            assert await gateway.is_ready()
        (request,), (call,) = collected.named("POST /predict"), collected.named(CALL)
        assert len(collected.spans) == 2  # health checks and probes have none

    assert request.trace_id.hex() == call.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == CALLER
    assert call.parent_span_id == request.span_id
    assert (request.kind, call.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert (request.status.code, call.status.code) == (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_UNSET)
    assert attributes(request) == {
        "http.request.method": "POST",
        "url.path": "/predict",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "gateway.request_id": "course-7",
        "gateway.prompts": 2,
        "gateway.failed_prompts": 1,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
    }
    assert attributes(call)["triton.rows"] == 1
    assert attributes(call)["server.port"] == triton.port
    assert collected.resources[0]["service.name"] == "llm-gateway"
    assert collected.resources[0]["gen_ai.request.model"] == "course"
    assert triton.calls[0].metadata["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert triton.calls[0].metadata["tracestate"] == "a=b"
    assert [record.fields["trace"] for record in caplog.records if record.fields["id"] == "course-7"] == [TRACE]


@pytest.mark.parametrize("traceparent", [None, "nonsense", f"00-{'0' * 32}-{CALLER}-01"])
async def test_without_a_callers_trace_a_request_begins_one(triton: FakeTriton, traceparent: str | None) -> None:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    async with http_collector() as collected:
        async with running_gateway(triton, OTEL_EXPORTER_OTLP_ENDPOINT=collected.endpoint) as gateway:
            await gateway.client.post("/predict", json={"prompt": "a"}, headers=headers)
            await gateway.client.post("/v1/nowhere")
        (request,), (call,), (unknown,) = (collected.named(name) for name in ("POST /predict", CALL, "POST"))
    assert not request.parent_span_id
    assert call.trace_id == request.trace_id != unknown.trace_id
    assert attributes(unknown)["http.response.status_code"] == 404


async def test_failures_are_told(triton: FakeTriton) -> None:
    async with http_collector() as collected:
        async with running_gateway(
            triton, OTEL_EXPORTER_OTLP_ENDPOINT=collected.endpoint, REQUEST_TIMEOUT_S="3"
        ) as gateway:
            triton.script.append(respond(then=GONE))
            assert (await gateway.predict("a")).status_code == 200
            triton.script.append(hang())
            assert (await gateway.predict("b")).status_code == 504
        answered, late = collected.named("POST /predict")
        lost, again, hung = collected.named(CALL)
    assert answered.status.code == Status.STATUS_CODE_UNSET
    assert late.status.code == Status.STATUS_CODE_ERROR
    assert (attributes(lost)["error.type"], lost.status.code) == ("model_unavailable", Status.STATUS_CODE_ERROR)
    assert lost.parent_span_id == again.parent_span_id == answered.span_id
    assert "error.type" not in attributes(again)
    assert attributes(hung)["error.type"] == "deadline_exceeded"


async def test_a_collector_that_is_away_costs_no_request(triton: FakeTriton) -> None:
    async with http_collector() as collected:
        endpoint = collected.endpoint
    async with running_gateway(triton, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as gateway:
        assert (await gateway.predict("a")).json() == {"response": "a"}


async def test_a_caller_that_does_not_sample_leaves_no_span_but_its_context_is_passed_on(triton: FakeTriton) -> None:
    async with http_collector() as collected:
        async with running_gateway(triton, OTEL_EXPORTER_OTLP_ENDPOINT=collected.endpoint) as gateway:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
            await gateway.client.post("/predict", json={"prompt": "a"}, headers=headers)
        assert not collected.spans
    assert triton.calls[0].metadata["traceparent"].startswith(f"00-{TRACE}-")
    assert triton.calls[0].metadata["traceparent"].endswith("-00")


_SERVE_ONE = """
import asyncio, sys
from tests.integration.gateway.harness import running_gateway, running_triton

async def main():
    async with running_triton() as triton, running_gateway(triton) as gateway:
        assert (await gateway.predict("a")).status_code == 200
        assert "traceparent" not in triton.calls[0].metadata
asyncio.run(main())
sys.exit(", ".join(name for name in sys.modules if name.startswith("opentelemetry")) or 0)
"""


def test_without_an_endpoint_the_library_is_not_even_imported() -> None:
    command = [sys.executable, "-c", _SERVE_ONE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
