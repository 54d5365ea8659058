"""``POST /predict``: one question or a list of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.disconnect import run_while_connected
from gateway.errors import BadValue, GatewayError, ModelFailed, error_body_of
from gateway.event_stream import EventStream
from gateway.metrics import Metrics
from gateway.middleware.context import RequestRecord, record_of
from gateway.middleware.direct import Endpoint
from gateway.prediction import Delta, Prediction, Predictor, Questions
from gateway.schemas import ErrorResponse, PredictResponse, parse_predict_request, predict_openapi

PATH = "/predict"
_ERROR_STATUSES = (400, 408, 413, 422, 429, 502, 503, 504)
_RESPONSES: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in _ERROR_STATUSES}
_RESPONSES[200] = {"description": "The answer", "content": {"text/event-stream": {}}}
_EVENTS = "text/event-stream"


def predict_endpoint(predictor: Predictor, metrics: Metrics, limit_s: float) -> Endpoint:
    """The endpoint, answering with ``predictor``. ``limit_s`` is the time that a request has as a whole."""

    async def predict(request: Request) -> Response:
        """Answer one question, or each question of a list: same length, same order.

        A question of a list that cannot be answered gets an empty answer and an entry in `errors`. With
        `Accept: text/event-stream` the answer to one question comes as events.
        """
        wish = parse_predict_request(await request.body())
        is_list = isinstance(wish.prompt, list)
        record = record_of(request)
        questions = Questions(
            prompts=wish.prompt if isinstance(wish.prompt, list) else [wish.prompt],
            options=wish.options(),
            system_prompt=wish.system_prompt,
            request_id=record.request_id,
        )
        record.prompts = len(questions.prompts)
        if _EVENTS in request.headers.get("accept", ""):
            if is_list:
                raise BadValue("a list of prompts cannot be streamed")
            return EventStream(
                _events(predictor, questions, record),
                partial(_error_event, record),
                limit_s,
                on_first=partial(metrics.note_first_piece, PATH, record.started),
            )
        prediction = await run_while_connected(request.receive, predictor.predict(questions))
        _note_tokens(record, prediction)
        record.failed_prompts = prediction.failed
        return _json(_list_answer(prediction) if is_list else _single_answer(prediction))

    return predict


def predict_routes(predict: Endpoint) -> APIRouter:
    """The route of the endpoint, for the OpenAPI document; requests come to it directly."""
    router = APIRouter()
    router.post(PATH, response_model=PredictResponse, responses=_RESPONSES, openapi_extra=predict_openapi())(predict)
    return router


async def _events(predictor: Predictor, questions: Questions, record: RequestRecord) -> AsyncGenerator[bytes, None]:
    usage = Prediction([])
    try:
        async with aclosing(predictor.stream(questions, usage)) as found:
            async for item in found:
                if isinstance(item, Delta):
                    yield _event({"delta": item.text})
                else:
                    yield _event({"response": item.text, "finish_reason": item.finish_reason})
    except GatewayError:
        record.failed_prompts = 1
        raise
    finally:
        _note_tokens(record, usage)


def _event(fields: dict[str, str]) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def _error_event(record: RequestRecord, error: GatewayError) -> bytes:
    return b"event: error\ndata: " + error_body_of(error, record.request_id) + b"\n\n"


def _single_answer(prediction: Prediction) -> dict[str, Any]:
    answer = prediction.answers[0]
    if isinstance(answer, GatewayError):
        raise answer
    return {"response": answer}


def _list_answer(prediction: Prediction) -> dict[str, Any]:
    """One bad question must not cost the others their answers; only if all are bad is the request an error."""
    answers = prediction.answers
    bad = [(index, answer) for index, answer in enumerate(answers) if isinstance(answer, GatewayError)]
    if not bad:
        return {"response": answers}
    errors = [error for _, error in bad]
    if len(bad) == len(answers):
        raise _common_error(errors)
    return {
        "response": ["" if isinstance(answer, GatewayError) else answer for answer in answers],
        "errors": [{"index": index, "type": error.type, "message": error.message} for index, error in bad],
    }


def _common_error(errors: list[GatewayError]) -> GatewayError:
    """The error of a request all of whose prompts failed: the caller's fault, one cause for all, or the model's."""
    if len({error.status for error in errors}) > 1:
        first = next(error for error in errors if not isinstance(error, BadValue))
        return ModelFailed(f"none of the {len(errors)} prompts was answered; the first failure: {first.message}")
    if len(errors) == 1:
        return errors[0]
    return type(errors[0])(f"none of the {len(errors)} prompts was answered; the first: {errors[0].message}")


def _note_tokens(record: RequestRecord, prediction: Prediction) -> None:
    record.prompt_tokens = prediction.prompt_tokens
    record.completion_tokens = prediction.completion_tokens


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
