"""Errors of the gateway, and the one place where they become HTTP answers.

    GatewayError                     status, type, message; what a client may be told
    ├── BadValue                400  a value that is not allowed: empty or too long prompt, option out of range
    ├── Unauthorized            401  API_KEY or ADMIN_TOKEN was not sent, or is another one
    ├── Forbidden               403  not allowed for anybody: ADMIN_TOKEN is not set
    ├── UnknownModel            404  OpenAI's API: the model's name is another one
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

_HTTP_ERROR_TYPES = {404: "not_found", 405: "method_not_allowed"}
_OPENAI_PREFIX = "/v1/"


class GatewayError(Exception):
    """An error a client may be told. ``retry_after_s`` is sent as ``Retry-After``.

    ``param`` and ``code`` are for OpenAI's API: the field at fault, and a word for programs where one is established.
    """

    status = 500
    type = "internal_error"
    retry_after_s: int | None = None

    def __init__(
        self, message: str, retry_after_s: int | None = None, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class BadValue(GatewayError):
    status = 400
    type = "invalid_value"


class Unauthorized(GatewayError):
    status = 401
    type = "unauthorized"


class Forbidden(GatewayError):
    status = 403
    type = "forbidden"


class UnknownModel(GatewayError):
    status = 404
    type = "model_not_found"


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


def error_response(exc: Exception, request_id: str, path: str = "") -> Response:
    """Translate any exception to the JSON answer; what is not ours to tell becomes a plain 500.

    On the paths of OpenAI's API the error has that API's fields too.
    """
    headers: dict[str, str] = {}
    if isinstance(exc, HTTPException):
        headers |= exc.headers or {}
        error = GatewayError(str(exc.detail))
        error.status, error.type = exc.status_code, _HTTP_ERROR_TYPES.get(exc.status_code, "http_error")
    else:
        error = as_gateway_error(exc)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == Unauthorized.status:
        headers["WWW-Authenticate"] = "Bearer"
    encode = openai_error_body if path.startswith(_OPENAI_PREFIX) else error_body_of
    return Response(encode(error, request_id), error.status, headers, media_type="application/json")


def error_body(kind: str, message: str, request_id: str) -> bytes:
    """The JSON every error answer has."""
    return orjson.dumps({"error": {"type": kind, "message": message, "request_id": request_id}})


def error_body_of(error: GatewayError, request_id: str) -> bytes:
    """The same for an error of ours."""
    return error_body(error.type, error.message, request_id)


def openai_error_body(error: GatewayError, request_id: str) -> bytes:
    """The same with what clients of OpenAI's API look at besides."""
    fields = {"type": error.type, "message": error.message, "param": error.param, "code": error.code or error.type}
    return orjson.dumps({"error": {**fields, "request_id": request_id}})


def first_problem(problems: list[Any]) -> str:
    """One line of pydantic's list of problems: where, and what is expected there. Never shows the input."""
    problem = problems[0]
    place = ".".join(str(part) for part in problem["loc"] if part != "body")
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])


def as_gateway_error(exc: Exception) -> GatewayError:
    """The error of ours for any exception; what is not ours to tell says only that something failed."""
    if isinstance(exc, GatewayError):
        return exc
    if isinstance(exc, RequestValidationError):
        return WrongShape(first_problem(list(exc.errors())))
    if isinstance(exc, ClientDisconnect):
        return ClientGone("the client went away")
    return GatewayError("the gateway failed on this request")
