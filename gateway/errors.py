"""Errors of the gateway, and the one place where they become HTTP answers.

    GatewayError                     status, type, message; what a client may be told
    ├── BadValue                400  a value that is not allowed: empty or too long prompt, option out of range
    ├── BodyTimeout             408  the request's body did not come in time
    ├── TooLarge                413  body over MAX_BODY_BYTES, or more prompts than MAX_BATCH_PROMPTS
    ├── WrongShape              422  not JSON, not the documented fields or types
    ├── ClientGone              499  the client went away; nobody reads the answer, only the log has the status
    ├── ModelFailed             502  the model failed on this request
    ├── QueueFull               429  ┐
    ├── NotReady                503  │ the same request may succeed later: these carry Retry-After
    ├── UpstreamUnavailable     503  │ Triton or its engine is gone; retried while the deadline allows
    ├── ShuttingDown            503  ┘
    └── DeadlineExceeded        504  REQUEST_TIMEOUT_S passed

Everything else is a mistake of ours: 500, with the traceback in the log and not in the answer.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

_HTTP_ERROR_TYPES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}


class GatewayError(Exception):
    """An error a client may be told. ``retry_after_s`` is sent as ``Retry-After``."""

    status = 500
    type = "internal_error"
    retry_after_s: int | None = None

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class BadValue(GatewayError):
    status = 400
    type = "invalid_value"


class BodyTimeout(GatewayError):
    status = 408
    type = "request_timeout"


class TooLarge(GatewayError):
    status = 413
    type = "too_large"


class WrongShape(GatewayError):
    status = 422
    type = "invalid_request"


class QueueFull(GatewayError):
    status = 429
    type = "queue_full"
    retry_after_s = 1


class ClientGone(GatewayError):
    status = 499
    type = "client_gone"


class ModelFailed(GatewayError):
    status = 502
    type = "model_failed"


class NotReady(GatewayError):
    status = 503
    type = "not_ready"
    retry_after_s = 5


class UpstreamUnavailable(GatewayError):
    status = 503
    type = "model_unavailable"
    retry_after_s = 5


class ShuttingDown(GatewayError):
    status = 503
    type = "shutting_down"
    retry_after_s = 5


class DeadlineExceeded(GatewayError):
    status = 504
    type = "deadline_exceeded"


def error_response(exc: Exception, request_id: str) -> Response:
    """Translate any exception to the JSON answer; what is not ours to tell becomes a plain 500."""
    if isinstance(exc, HTTPException):
        kind = _HTTP_ERROR_TYPES.get(exc.status_code, "http_error")
        return _json_error(exc.status_code, kind, str(exc.detail), request_id, dict(exc.headers or {}))
    error = _as_gateway_error(exc)
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return _json_error(error.status, error.type, error.message, request_id, headers)


def error_body(kind: str, message: str, request_id: str) -> bytes:
    """The JSON every error answer has."""
    return orjson.dumps({"error": {"type": kind, "message": message, "request_id": request_id}})


def first_problem(problems: list[Any]) -> str:
    """One line of pydantic's list of problems: where, and what is expected there. Never shows the input."""
    problem = problems[0]
    place = ".".join(str(part) for part in problem["loc"] if part != "body")
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])


def _as_gateway_error(exc: Exception) -> GatewayError:
    if isinstance(exc, GatewayError):
        return exc
    if isinstance(exc, RequestValidationError):
        return WrongShape(first_problem(list(exc.errors())))
    if isinstance(exc, ClientDisconnect):
        return ClientGone("the client went away")
    return GatewayError("the gateway failed on this request")


def _json_error(status: int, kind: str, message: str, request_id: str, headers: dict[str, str]) -> Response:
    return Response(error_body(kind, message, request_id), status, headers, media_type="application/json")
