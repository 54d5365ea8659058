"""What ``/predict`` reads and writes, as pydantic sees it: the HTTP border, and the source of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from gateway.errors import WrongShape, first_problem
from gateway.policy.sampling import SamplingOptions


class PredictRequest(BaseModel):
    """One question or a list of them. Fields that are not known are ignored."""

    model_config = ConfigDict(extra="ignore")

    # Stopping at the first item of a wrong type keeps a list of a million numbers from making a million messages.
    prompt: StrictStr | Annotated[list[StrictStr], Field(fail_fast=True)] = Field(
        description="One question, or a list of them."
    )
    max_new_tokens: int | None = Field(default=None, description="At least 1. Default: by the kind of question.")
    temperature: float | None = Field(default=None, description="0 (greedy) to 2.")
    top_p: float | None = Field(default=None, description="Above 0, up to 1.")
    top_k: int | None = Field(default=None, description="0 or -1: all tokens; else the number of tokens.")
    repetition_penalty: float | None = Field(default=None, description="Above 0, up to 2. 1: none.")
    frequency_penalty: float | None = Field(default=None, description="-2 to 2. 0: none.")
    ignore_eos: bool | None = Field(default=None, description="Generate until the token budget is used up.")
    system_prompt: StrictStr | None = Field(default=None, description="Instead of the service's own; empty: none.")

    def options(self) -> SamplingOptions:
        """The sampling wishes, unchecked."""
        return SamplingOptions(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            ignore_eos=bool(self.ignore_eos),
        )


class RowProblem(BaseModel):
    """Why one prompt of a list has the answer ``""``."""

    index: int
    type: str
    message: str


class PredictResponse(BaseModel):
    """An answer for a question, a list of the same length and order for a list."""

    response: str | list[str]
    errors: list[RowProblem] | None = Field(default=None, description="Only if prompts of a list have no answer.")


class ErrorDetail(BaseModel):
    """What went wrong; ``request_id`` also stands in the header ``X-Request-Id`` and in the logs."""

    type: str
    message: str
    request_id: str


class ErrorResponse(BaseModel):
    """The body of every error answer."""

    error: ErrorDetail


class OpenAIErrorDetail(ErrorDetail):
    """With what clients of OpenAI's API look at: the field at fault, and a word for programs."""

    param: str | None
    code: str


class OpenAIErrorResponse(BaseModel):
    """The body of every error answer of OpenAI's API."""

    error: OpenAIErrorDetail


class SystemPromptBody(BaseModel):
    """The default system prompt; empty: none."""

    system_prompt: StrictStr


B = TypeVar("B", bound=BaseModel)


def parse_predict_request(body: bytes) -> PredictRequest:
    """Read a request's body, whatever its content type. Raises :class:`WrongShape`."""
    return parse_body(body, PredictRequest)


def parse_body(body: bytes, kind: type[B]) -> B:
    """Read a JSON object of a kind. Raises :class:`WrongShape`.

    Parsing and validating in two steps takes a third of the time of pydantic's one step: the latter tries each string
    of a list for both kinds of prompt.
    """
    try:
        fields = orjson.loads(body)
        if not isinstance(fields, dict):
            raise WrongShape("the body must be a JSON object")
        return kind.model_validate(fields)
    except orjson.JSONDecodeError as exc:
        raise WrongShape(f"the body is not valid JSON: {exc}") from exc
    except ValidationError as exc:
        raise WrongShape(_explain(exc)) from exc


def _explain(exc: ValidationError) -> str:
    """One line naming the field. A wrong prompt is reported twice by pydantic, once for each kind it may have."""
    problems = exc.errors(include_url=False, include_context=False, include_input=False)
    places = [problem["loc"] for problem in problems]
    if places[0][0:1] != ("prompt",) or len(places) < 2:
        return first_problem(list(problems))
    index = next((place[2] for place in places if len(place) > 2), None)
    return "prompt: must be a string or a list of strings" if index is None else f"prompt[{index}]: must be a string"


def predict_openapi() -> dict[str, Any]:
    """The request body's part of the OpenAPI document; the route reads the body itself, so FastAPI cannot know it."""
    examples = {
        "one question": {"value": {"prompt": "什么是数据并行性？"}},
        "several questions": {"value": {"prompt": ["什么是线程块？", "什么是共享内存？"]}},
        "with options": {"value": {"prompt": "什么是归约？", "max_new_tokens": 32, "temperature": 0.7, "top_p": 0.9}},
    }
    return body_openapi(PredictRequest, examples)


def body_openapi(kind: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """The same for a body of any kind without nested ones."""
    content = {"schema": kind.model_json_schema(), "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
