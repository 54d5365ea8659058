"""What OpenAI's API takes, as pydantic sees it: the HTTP border, and the source of the OpenAPI document.

A field that is not declared is refused by its name: a client that asks for tools must not get an answer that ignores
them. Declared as ``Any`` is what may be sent and changes nothing here. A field that is ``null`` counts as not sent.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from gateway.errors import BadValue

_MAX_INT32 = 2**31 - 1
_MAX_LOGPROBS = 20
_MAX_STOPS = 64
_SHOWN = 40  # characters of a value in an error
_NO_EFFECT = Field(default=None, description="Accepted; has no effect here.")

Text = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, le=_MAX_INT32)]
# Lists are left at their first mistake: each one found is an object, and a small body has room for a million.
_FAIL_FAST = Field(fail_fast=True)
TokenIds = Annotated[list[Annotated[StrictInt, Field(ge=0, le=_MAX_INT32)]], Field(min_length=1), _FAIL_FAST]
Prompt = StrictStr | TokenIds | Annotated[list[StrictStr], _FAIL_FAST] | Annotated[list[TokenIds], _FAIL_FAST]
# Where several types are allowed pydantic tells what is wrong for each; the client need have meant none of them.
_ALLOWED = {
    "prompt": "a text, a list of texts, a list of token ids, or a list of such lists; not an empty list",
    "stop": f"a text, or a list of at most {_MAX_STOPS} texts; none of them empty",
}


class _Sent(BaseModel):
    """An object of a request: only declared fields; ``null`` for nothing, as clients send back what they got."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class StreamOptions(_Sent):
    """What a stream says besides the text."""

    include_usage: bool = Field(default=False, description="A last event with the usage of the whole request.")
    continuous_usage_stats: bool = Field(default=False, description="The usage so far in every event, as vLLM does.")
    include_obfuscation: Any = _NO_EFFECT


class JsonSchema(_Sent):
    """A named JSON schema. ``strict`` makes no difference: the text always follows the schema."""

    name: str = ""
    description: Any = None
    strict: Any = None
    json_schema: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Sent):
    """What the text must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class CommonRequest(_Sent):
    """What chats and completions share; the last ten are vLLM's additions."""

    model: str | None = Field(default=None, description="The served model's name; left out: that model.")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=128)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Text | Annotated[list[Text], Field(max_length=_MAX_STOPS), _FAIL_FAST] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    response_format: ResponseFormat | None = None
    user: Any = _NO_EFFECT
    metadata: Any = _NO_EFFECT
    store: Literal[False] | None = None
    service_tier: Any = _NO_EFFECT
    safety_identifier: Any = _NO_EFFECT
    prompt_cache_key: Any = _NO_EFFECT
    prompt_cache_retention: Any = _NO_EFFECT
    top_k: int | None = Field(default=None, ge=-1, le=_MAX_INT32)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    min_tokens: int | None = Field(default=None, ge=0, le=_MAX_INT32)
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], _FAIL_FAST] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1), _FAIL_FAST] | None = None
    bad_words: Annotated[list[Text], _FAIL_FAST] | None = None


class ChatMessage(_Sent):
    """One message. ``content`` is a text, or a list of parts of the type ``text``."""

    role: Literal["system", "developer", "user", "assistant"]
    content: StrictStr | Annotated[list[dict[str, Any]], _FAIL_FAST]
    name: str | None = None


class ChatRequest(CommonRequest):
    """``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    max_tokens: int | None = Field(default=None, ge=1, le=_MAX_INT32)
    max_completion_tokens: int | None = Field(
        default=None, ge=1, le=_MAX_INT32, description="Default: what the model has room for."
    )
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=_MAX_LOGPROBS)
    modalities: Annotated[list[Literal["text"]], _FAIL_FAST] | None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: Any = _NO_EFFECT


class CompletionRequest(CommonRequest):
    """``POST /v1/completions``."""

    prompt: Prompt = Field(description="A text, token ids, or a list of one of them.")
    max_tokens: int = Field(default=16, ge=1, le=_MAX_INT32)
    logprobs: int | None = Field(default=None, ge=0, le=_MAX_LOGPROBS)
    echo: bool = False
    best_of: int | None = None


R = TypeVar("R", bound=CommonRequest)


def parse_request(body: bytes, kind: type[R]) -> R:
    """Read a request's body, whatever its content type. Raises :class:`BadValue` naming the field."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadValue(f"the body is not valid JSON: {exc}", code="invalid_json") from exc
    if not isinstance(fields, dict):
        raise BadValue("the body must be a JSON object")
    try:
        return kind.model_validate(fields)
    except ValidationError as exc:
        raise _bad_field(exc.errors(include_url=False, include_context=False)[0]) from exc


def request_openapi(kind: type[CommonRequest], examples: dict[str, Any]) -> dict[str, Any]:
    """The request body's part of the OpenAPI document, with nested schemas in their places."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"schema": _inlined(schema, definitions), "examples": {n: {"value": v} for n, v in examples.items()}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _bad_field(problem: Any) -> BadValue:
    if problem["type"] == "extra_forbidden":
        param = ".".join(map(str, problem["loc"]))
        return BadValue(f"{param[:80]}: this parameter is not supported", param=param, code="unsupported_parameter")
    place = [part for part in problem["loc"] if not _names_a_choice(part)]
    if place and place[0] in _ALLOWED:
        return BadValue(f"{place[0]}: must be {_ALLOWED[place[0]]}", param=place[0])
    param = ".".join(map(str, place))
    return BadValue(f"{param}: {problem['msg']}{_but_was(problem['input'])}", param=param)


def _but_was(value: Any) -> str:
    """The value that was sent, where it is short enough to be said."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, int, float)) else ""
    return f", not {text}" if 0 < len(text) <= _SHOWN else ""


def _names_a_choice(part: Any) -> bool:
    """Whether a part of pydantic's place is no field but one of the types that a value may have."""
    return isinstance(part, str) and (part in ("str", "nullable") or "[" in part)


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    return {name: _inlined(value, definitions) for name, value in node.items()}
