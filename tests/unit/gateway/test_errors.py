"""One translation: every exception becomes the documented JSON, and nothing else leaks out."""

from __future__ import annotations

import json

import grpc  # type: ignore[import-untyped]
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway import errors
from gateway.errors import error_response
from gateway.triton.client import TritonClient, error_of_model


@pytest.mark.parametrize(
    "error,status,kind,retry_after",
    [
        (errors.BadValue("m"), 400, "invalid_value", None),
        (errors.BodyTimeout("m"), 408, "request_timeout", None),
        (errors.TooLarge("m"), 413, "too_large", None),
        (errors.WrongShape("m"), 422, "invalid_request", None),
        (errors.QueueFull("m"), 429, "queue_full", "1"),
        (errors.ModelFailed("m"), 502, "model_failed", None),
        (errors.NotReady("m"), 503, "not_ready", "5"),
        (errors.NotReady("m", 7), 503, "not_ready", "7"),
        (errors.UpstreamUnavailable("m"), 503, "model_unavailable", "5"),
        (errors.ShuttingDown("m"), 503, "shutting_down", "5"),
        (errors.DeadlineExceeded("m"), 504, "deadline_exceeded", None),
        (HTTPException(404, "m"), 404, "not_found", None),
        (HTTPException(405, "m"), 405, "method_not_allowed", None),
        (HTTPException(418, "m"), 418, "http_error", None),
        (RequestValidationError([{"loc": ("body", "a", 0), "msg": "m", "type": "t"}]), 422, "invalid_request", None),
        (ClientDisconnect(), 499, "client_gone", None),
    ],
)
def test_status_type_and_message(error: Exception, status: int, kind: str, retry_after: str | None) -> None:
    response = error_response(error, "id-1")
    body = json.loads(bytes(response.body))["error"]
    assert (response.status_code, body["type"], body["request_id"]) == (status, kind, "id-1")
    assert body["message"]
    assert response.headers.get("retry-after") == retry_after
    assert response.headers["content-type"] == "application/json"


def test_headers_of_starlettes_errors_are_kept() -> None:
    assert error_response(HTTPException(405, headers={"Allow": "GET"}), "i").headers["allow"] == "GET"


def test_an_unexpected_error_tells_nothing() -> None:
    response = error_response(RuntimeError("/secret/path"), "id-1")
    assert response.status_code == 500
    assert b"secret" not in bytes(response.body)
    assert json.loads(bytes(response.body))["error"]["type"] == "internal_error"


@pytest.mark.parametrize(
    "code,expected,message",
    [
        ("INVALID_ARG", errors.BadValue, "text"),
        ("INTERNAL", errors.ModelFailed, "text"),
        ("UNAVAILABLE", errors.UpstreamUnavailable, "the model is not available"),
        ("CANCELLED", errors.UpstreamUnavailable, "the model is not available"),
        ("SOMETHING", errors.ModelFailed, "the model failed on this request"),
    ],
)
def test_codes_of_the_model(code: str, expected: type[errors.GatewayError], message: str) -> None:
    error = error_of_model(code, "text")
    assert type(error) is expected
    assert error.message == message


@pytest.mark.parametrize(
    "status,details,expected",
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", errors.UpstreamUnavailable),
        (grpc.StatusCode.INTERNAL, "Stub process 'llm_0_0' is not healthy.", errors.UpstreamUnavailable),
        (grpc.StatusCode.NOT_FOUND, "unknown model", errors.UpstreamUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max", errors.ModelFailed),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", errors.ModelFailed),
        (grpc.StatusCode.INTERNAL, "INVALID_ARG: too long", errors.BadValue),
    ],
)
def test_statuses_of_a_call(status: grpc.StatusCode, details: str, expected: type[errors.GatewayError]) -> None:
    error = TritonClient("127.0.0.1:1")._translate(status, details)
    assert type(error) is expected
    assert "Stub" not in error.message
