"""OpenAI's requests as the model reads them: nothing lost, nothing made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import BadValue
from gateway.openai.conversion import StreamWish, chat_samples, completion_samples, refusal
from gateway.openai.logprobs import chat_logprobs, completion_logprobs
from gateway.openai.schemas import ChatRequest, CompletionRequest, parse_request
from gateway.triton.samples import InputKind, SampleRequest, encode_samples
from llm_model import parameters
from llm_model.errors import InvalidArgument
from llm_model.prompts import read_messages, read_token_ids

HELLO: Any = [{"role": "user", "content": "a"}]


def chat(**fields: Any) -> ChatRequest:
    return parse_request(json.dumps({"messages": HELLO, **fields}).encode(), ChatRequest)


def completion(**fields: Any) -> CompletionRequest:
    return parse_request(orjson.dumps(fields), CompletionRequest)


@pytest.mark.parametrize(
    "fields, max_tokens",
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
    ],
)
def test_the_answers_length(fields: dict[str, int], max_tokens: int | None) -> None:
    assert chat_samples(chat(**fields), "").parameters.get("max_tokens") == max_tokens


def test_null_is_as_good_as_not_sent() -> None:
    nothing = dict.fromkeys(("temperature", "stop", "tools", "response_format", "stream", "n", "logprobs"))
    assert chat_samples(chat(**nothing), "").parameters == {}
    streamed = chat(stream=True, stream_options={"include_usage": None, "continuous_usage_stats": None})
    assert StreamWish.of(streamed) == StreamWish(stream=True, include_usage=False, continuous_usage=False)
    schema = {"properties": {"a": {"default": None}}}
    wanted = {"type": "json_schema", "json_schema": {"name": None, "strict": None, "schema": schema}}
    assert chat_samples(chat(response_format=wanted), "").parameters == {"structured_outputs": {"json": schema}}


@pytest.mark.parametrize("depth", [100, 300])
def test_a_schema_that_cannot_be_sent_on_is_refused_by_its_name(depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"a": schema}
    wish = chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    if depth == 100:
        assert encode_samples(chat_samples(wish, ""))
        return
    with pytest.raises(BadValue, match="nested too deeply; at most 250 levels") as caught:
        chat_samples(wish, "")
    assert caught.value.param == "response_format.json_schema.schema"


@pytest.mark.parametrize("prompt", [[], "x", [[1], "x"], 7, [1.5], {}, [None]])
def test_a_prompt_is_of_one_kind(prompt: Any) -> None:
    if prompt == "x":
        assert completion_samples(completion(prompt=prompt), "").inputs == [b"x"]
        return
    with pytest.raises(BadValue, match="prompt"):
        completion_samples(completion(prompt=prompt), "")


@pytest.mark.parametrize("stop", ["", [""], ["a", 5], ["a", ""], 5, {"a": 1}, ["a"] * 65])
def test_a_bad_stop_is_told_what_is_allowed(stop: Any) -> None:
    with pytest.raises(BadValue) as caught:
        chat(stop=stop)
    assert caught.value.param == "stop"
    assert caught.value.message == "stop: must be a text, or a list of at most 64 texts; none of them empty"


@pytest.mark.parametrize("prompt", ["", ["a", ""]])
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(BadValue, match="prompt: an empty text") as caught:
        completion_samples(completion(prompt=prompt), "")
    assert caught.value.param == "prompt"


def refuse(message: str) -> None:
    raise InvalidArgument(message)


@pytest.mark.parametrize(
    ("kind", "read", "param", "message"),
    [
        (
            "token_ids",
            lambda: read_token_ids(b"[1, 100]", 100),
            "prompt",
            "prompt must be a JSON list of token ids from 0 to 99",
        ),
        (
            "messages",
            lambda: read_messages(b"[]"),
            "messages",
            "messages: must be a JSON list of at least one message",
        ),
        (
            "text",
            lambda: parameters.parse(b'{"top_p": 0}'),
            "top_p",
            "'top_p' has value 0. Expected `float` > 0.0",
        ),
        (
            "text",
            lambda: refuse("min_tokens must be less than or equal to max_tokens=1, got 2. (parameter=min_tokens)"),
            "min_tokens",
            "min_tokens must be less than or equal to max_tokens=1, got 2. (parameter=min_tokens)",
        ),
        (
            "text",
            lambda: refuse("Grammar error: regex parse error: (a"),
            "response_format",
            "response_format: Grammar error: regex parse error: (a",
        ),
        ("text", lambda: refuse("something else"), None, "something else"),
    ],
)
def test_the_models_refusals_name_the_fields_of_this_api(
    kind: InputKind, read: Callable[[], Any], param: str | None, message: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read()
    wanted = SampleRequest(kind, [b""], {"top_p": 0, "min_tokens": 2, "max_tokens": 1})
    error = refusal(BadValue(refused.value.message), wanted)
    assert (error.param, error.message) == (param, message)


def test_the_prompt_of_a_chat_is_an_unknown_field() -> None:
    with pytest.raises(BadValue, match="prompt: this parameter is not supported") as caught:
        chat(prompt="a")
    assert (caught.value.param, caught.value.code) == ("prompt", "unsupported_parameter")


def test_the_usage_so_far_needs_the_usage() -> None:
    wish = StreamWish.of(chat(stream=True, stream_options={"continuous_usage_stats": True}))
    assert (wish.include_usage, wish.continuous_usage) == (False, False)


_NUMBERS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.001, 1),
        "n": st.integers(1, 128),
        "stop": st.one_of(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=4)),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(st.integers(0, 1000).map(str), st.floats(-100, 100)),
        "top_k": st.integers(-1, 1000),
        "min_p": st.floats(0, 1),
        "repetition_penalty": st.floats(0.001, 2),
        "min_tokens": st.integers(0, 100),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.lists(st.integers(0, 1000)),
        "skip_special_tokens": st.booleans(),
        "allowed_token_ids": st.lists(st.integers(0, 1000), min_size=1),
        "bad_words": st.lists(st.text(min_size=1)),
        "response_format": st.sampled_from(
            [
                {"type": "text"},
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
            ]
        ),
    },
)


@given(fields=_NUMBERS, logprobs=st.one_of(st.none(), st.integers(0, 20)))
def test_what_is_accepted_here_is_accepted_by_the_model(fields: dict[str, Any], logprobs: int | None) -> None:
    wanted = completion_samples(completion(prompt="a", logprobs=logprobs, **fields), "")
    read = parameters.parse(orjson.dumps({**wanted.parameters, "n": wanted.n}))
    assert (read.n, read.max_tokens, read.logprobs) == (fields.get("n", 1), 16, logprobs)
    for name in ("temperature", "top_p", "seed", "top_k", "min_p", "presence_penalty", "ignore_eos"):
        if name in fields:
            assert getattr(read, name) == fields[name]


def test_log_probabilities_in_both_forms() -> None:
    position = {
        "7": {"logprob": -2.0, "rank": 3, "decoded_token": "c"},
        "5": {"logprob": -0.5, "rank": 1, "decoded_token": "a"},
        "6": {"logprob": None, "rank": 2, "decoded_token": "b"},
    }
    (token,) = chat_logprobs([position], [7], 2)["content"]
    assert (token["token"], [top["token"] for top in token["top_logprobs"]]) == ("c", ["a", "b"])
    assert token["top_logprobs"][1]["logprob"] == -9999.0
    assert completion_logprobs([position, position], [7, 5], 10) == {
        "text_offset": [10, 11],
        "tokens": ["c", "a"],
        "token_logprobs": [-2.0, -0.5],
        "top_logprobs": [{"c": -2.0, "a": -0.5, "b": -9999.0}] * 2,
    }
    assert completion_logprobs([], [], 3)["text_offset"] == []


@pytest.mark.parametrize(
    "body",
    [b'{"prompt": [%s]}', b'{"prompt": "a", "stop_token_ids": [%s]}', b'{"prompt": "a", "bad_words": [%s]}'],
)
def test_a_list_of_mistakes_is_left_at_the_first(body: bytes) -> None:
    """The others would be a million objects, and seconds in which nobody else is served."""
    with pytest.raises(BadValue) as refused:
        parse_request(body % b",".join([b"1.5"] * 1000), CompletionRequest)
    cause = refused.value.__cause__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() <= 8


@pytest.mark.parametrize(
    "fields, param, message",
    [
        ({"n": 200}, "n", "n: Input should be less than or equal to 128, not 200"),
        ({"temperature": "nan"}, "temperature", 'temperature: Input should be less than or equal to 2, not "nan"'),
        ({"a[b": 1}, "a[b", "a[b: this parameter is not supported"),
        ({"str": 1}, "str", "str: this parameter is not supported"),
    ],
)
def test_a_refused_field_is_named_with_its_value(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(BadValue) as refused:
        chat(**fields)
    assert (refused.value.param, refused.value.message) == (param, message)
