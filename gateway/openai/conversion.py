"""From a request of OpenAI's API to what the model is asked. Pure functions; errors name the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import BadValue, TooLarge
from gateway.openai.schemas import ChatMessage, ChatRequest, CommonRequest, CompletionRequest, ResponseFormat
from gateway.triton.samples import InputKind, SampleRequest

MAX_ROWS = 2048  # prompts times n: one request to Triton, whose Python backend moves it through shared memory
_ABOUT_STRUCTURE = re.compile("grammar|schema", re.IGNORECASE)  # vLLM's words, which name no parameter
# Fields that mean to vLLM what they mean to OpenAI, under the same names.
_SAME = (
    *("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "top_k", "min_p"),
    *("repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids", "include_stop_str_in_output"),
    *("skip_special_tokens", "allowed_token_ids", "bad_words"),
)


@dataclass(frozen=True)
class StreamWish:
    """Whether to stream, and which events carry the usage."""

    stream: bool
    include_usage: bool
    continuous_usage: bool

    @staticmethod
    def of(wish: CommonRequest) -> StreamWish:
        if wish.stream_options is None:
            return StreamWish(wish.stream, include_usage=False, continuous_usage=False)
        if not wish.stream:
            raise BadValue("stream_options: only allowed together with stream", param="stream_options")
        options = wish.stream_options
        return StreamWish(
            stream=True,
            include_usage=options.include_usage,
            continuous_usage=options.include_usage and options.continuous_usage_stats,
        )


def chat_samples(wish: ChatRequest, request_id: str) -> SampleRequest:
    """The request for one chat. Without a limit of its own it has no ``max_tokens``."""
    if wish.top_logprobs is not None and not wish.logprobs:
        raise BadValue("top_logprobs: only allowed together with logprobs", param="top_logprobs")
    limits = [limit for limit in (wish.max_completion_tokens, wish.max_tokens) if limit is not None]
    logprobs = (wish.top_logprobs or 0) if wish.logprobs else None
    messages = orjson.dumps([_message(message, place) for place, message in enumerate(wish.messages)])
    return SampleRequest(
        kind="messages",
        inputs=[messages],
        parameters=sampling_parameters(wish, limits[0] if limits else None, logprobs),
        n=wish.n,
        stream=wish.stream,
        logprobs=wish.logprobs,
        request_id=request_id,
    )


def completion_samples(wish: CompletionRequest, request_id: str) -> SampleRequest:
    """The request for one or many prompts."""
    if wish.best_of not in (None, wish.n):
        raise BadValue(f"best_of: has value {wish.best_of}; only the value of n is supported", param="best_of")
    if wish.echo and wish.logprobs is not None:
        raise BadValue("echo: not supported together with logprobs", param="echo", code="unsupported_parameter")
    kind, inputs = prompt_inputs(wish)
    if kind == "token_ids" and wish.echo and wish.stream:
        raise BadValue("echo: not supported for streamed token ids", param="echo", code="unsupported_parameter")
    if len(inputs) * wish.n > MAX_ROWS:
        raise TooLarge(f"{len(inputs)} prompts with n={wish.n}; at most {MAX_ROWS} answers a request are allowed")
    return SampleRequest(
        kind=kind,
        inputs=inputs,
        parameters=sampling_parameters(wish, wish.max_tokens, wish.logprobs),
        n=wish.n,
        stream=wish.stream,
        echo=wish.echo and not wish.stream,  # in a stream the gateway itself says the prompt first
        logprobs=wish.logprobs is not None,
        request_id=request_id,
    )


def prompt_inputs(wish: CompletionRequest) -> tuple[InputKind, Sequence[bytes]]:
    """The prompts of one kind, as the model reads them."""
    prompts: list[Any] = wish.prompt if isinstance(wish.prompt, list) else [wish.prompt]
    if not prompts:
        raise BadValue("prompt: the list is empty", param="prompt")
    if isinstance(prompts[0], str):
        if "" in prompts:
            raise BadValue("prompt: an empty text; at least one character is needed", param="prompt")
        return "text", [prompt.encode() for prompt in prompts]
    if isinstance(prompts[0], int):
        prompts = [prompts]
    return "token_ids", [orjson.dumps(prompt) for prompt in prompts]


def refusal(error: BadValue, wanted: SampleRequest) -> BadValue:
    """The model's refusal in the words of this API: the model names Triton's inputs, which are no fields here."""
    field = "messages" if wanted.kind == "messages" else "prompt"
    text = error.message.removeprefix("sampling_parameters: ").replace("'text_input'", field)
    if text.startswith(("the prompt ", field)):
        return BadValue(text, param=field)
    named = next((name for name in wanted.parameters if re.search(rf"\b{name}\b", text)), None)
    if named == "structured_outputs" or (named is None and _ABOUT_STRUCTURE.search(text)):
        return BadValue(f"response_format: {text}", param="response_format")
    return BadValue(text, param=named)


def sampling_parameters(wish: CommonRequest, max_tokens: int | None, logprobs: int | None) -> dict[str, Any]:
    """The parameters as the model's allow-list names them; what was not sent is left out."""
    found: dict[str, Any] = {name: getattr(wish, name) for name in _SAME}
    found |= {"max_tokens": max_tokens, "logprobs": logprobs, "structured_outputs": _structure(wish.response_format)}
    if wish.logit_bias:
        found["logit_bias"] = {str(token_id): bias for token_id, bias in wish.logit_bias.items()}
    return {name: value for name, value in found.items() if value is not None}


def _structure(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"json_object": True}
    if wanted.json_schema is None:
        raise BadValue(
            "response_format.json_schema: needed for the type json_schema", param="response_format.json_schema"
        )
    return {"json": _serializable(wanted.json_schema.json_schema, "response_format.json_schema.schema")}


def _serializable(value: dict[str, Any], place: str) -> dict[str, Any]:
    """The value. What comes in as JSON can be nested more deeply than what goes out (orjson: 1,024 and 254)."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as exc:
        raise BadValue(f"{place}: nested too deeply; at most 250 levels are allowed", param=place) from exc
    return value


def _message(message: ChatMessage, place: int) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role  # OpenAI's newer word for the same
    made = {"role": role, "content": _content(message.content, f"messages.{place}.content")}
    return made if message.name is None else {**made, "name": message.name}


def _content(content: str | list[dict[str, Any]], place: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for part in content:
        if part.get("type") != "text":
            kind = str(part.get("type"))[:40]
            raise BadValue(
                f"{place}: parts of the type {kind!r} are not supported", param=place, code="unsupported_parameter"
            )
        if not isinstance(part.get("text"), str):
            raise BadValue(f"{place}: a part of the type 'text' needs a text", param=place)
        texts.append(part["text"])
    return "\n".join(texts)  # as vLLM's server does for templates that take a text
