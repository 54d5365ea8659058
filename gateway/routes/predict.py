"""``POST /predict``: one question or a list of them."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.disconnect import run_while_connected
from gateway.errors import BadValue, GatewayError, ModelFailed
from gateway.middleware.context import RequestRecord, record_of
from gateway.prediction import Prediction, Predictor, Questions
from gateway.schemas import ErrorResponse, PredictResponse, parse_predict_request, predict_openapi

_ERROR_STATUSES = (400, 408, 413, 422, 429, 502, 503, 504)
_RESPONSES: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in _ERROR_STATUSES}


def predict_routes(predictor: Predictor) -> APIRouter:
    """The route, answering with ``predictor``."""
    router = APIRouter()

    @router.post("/predict", response_model=PredictResponse, responses=_RESPONSES, openapi_extra=predict_openapi())
    async def predict(request: Request) -> Response:
        """Answer one question, or each question of a list: same length, same order.

        A question of a list that cannot be answered gets an empty answer and an entry in `errors`.
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
        prediction = await run_while_connected(request.receive, predictor.predict(questions))
        _note(record, prediction)
        return _json(_list_answer(prediction) if is_list else _single_answer(prediction))

    return router


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


def _note(record: RequestRecord, prediction: Prediction) -> None:
    record.prompt_tokens = prediction.prompt_tokens
    record.completion_tokens = prediction.completion_tokens
    record.failed_prompts = sum(isinstance(answer, GatewayError) for answer in prediction.answers)


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
