"""Completions, models, keys and refusals as the official client sees them."""

from __future__ import annotations

from typing import Any

import grpc  # type: ignore[import-untyped]
import openai
import pytest

from tests.fakes.sampling_triton import Part, SamplingTriton, parts, pieces
from tests.fakes.triton_server import Refuse
from tests.integration.gateway.harness import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: Any = [{"role": "user", "content": "你好"}]


async def complete(client: openai.AsyncOpenAI, prompt: Any, **fields: Any) -> Any:
    return await client.completions.create(**{"model": "course", "prompt": prompt, **fields})


@pytest.mark.parametrize(
    "prompt, texts",
    [("ab", ["ab"]), (["ab", "c"], ["ab", "c"]), ([7, 8], ["7 8"]), ([[7, 8], [9]], ["7 8", "9"])],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_of_every_kind(
    client: openai.AsyncOpenAI, triton: SamplingTriton, prompt: Any, texts: list[str], stream: bool
) -> None:
    if stream:
        found = [""] * len(texts)
        async for chunk in await complete(client, prompt, stream=True):
            for choice in chunk.choices:
                found[choice.index] += choice.text
        assert found == texts
    else:
        answer = await complete(client, prompt)
        assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate(texts))
        assert answer.usage.prompt_tokens == answer.usage.completion_tokens == sum(map(len, texts))
    assert triton.samples[0].parameters["max_tokens"] == 16


async def test_samples_of_several_prompts_are_ordered_by_prompt(client: openai.AsyncOpenAI) -> None:
    answer = await complete(client, ["a", "b"], n=2, best_of=2)
    assert [choice.text for choice in answer.choices] == ["a", "a", "b", "b"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 4)


@pytest.mark.parametrize("stream", [False, True])
async def test_echo(client: openai.AsyncOpenAI, stream: bool) -> None:
    answer = await complete(client, ["ab", "cd"], echo=True, max_tokens=1, stream=stream)
    if stream:
        found = ["", ""]
        async for chunk in answer:
            found[chunk.choices[0].index] += chunk.choices[0].text
    else:
        found = [choice.text for choice in answer.choices]
    assert found == ["aba", "cdc"]


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    (choice,) = (await complete(client, "aé", logprobs=2)).choices
    assert choice.logprobs.tokens == ["a", "é"]
    assert choice.logprobs.token_logprobs == [-0.5, -0.5]
    assert choice.logprobs.top_logprobs[0] == {"a": -0.5, "b": -1.5}
    assert choice.logprobs.text_offset == [0, 1]


async def test_logprobs_of_a_stream_go_on_counting(client: openai.AsyncOpenAI) -> None:
    offsets, tokens = [], []
    async for chunk in await complete(client, "abc", logprobs=0, stream=True):
        if logprobs := chunk.choices[0].logprobs:
            offsets += logprobs.text_offset
            tokens += logprobs.tokens
    assert (offsets, tokens) == ([0, 1, 2], ["a", "b", "c"])


async def test_a_bad_prompt_of_many_is_the_requests_error(client: openai.AsyncOpenAI, triton: SamplingTriton) -> None:
    triton.plays.append(parts([Part(0, "a", "stop"), Part(1, "", "error", ("INVALID_ARG", "the prompt is too long"))]))
    with pytest.raises(openai.BadRequestError, match="too long") as caught:
        await complete(client, ["a", "b"])
    assert caught.value.param == "prompt"


TOO_LONG = "the prompt has 600 tokens; allowed are 1 to 511"
NO_TOKEN = "'text_input' must be a JSON list of token ids from 0 to 99"


@pytest.mark.parametrize(
    "path, body, said, param, told",
    [
        ("chat/completions", {"messages": HELLO}, TOO_LONG, "messages", TOO_LONG),
        ("completions", {"prompt": "a"}, TOO_LONG, "prompt", TOO_LONG),
        ("completions", {"prompt": [100]}, NO_TOKEN, "prompt", NO_TOKEN.replace("'text_input'", "prompt")),
        ("completions", {"prompt": "a"}, "sampling_parameters: 'seed' is odd", None, "'seed' is odd"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_model_refuses_is_told_by_the_field_that_was_sent(
    gateway: Gateway,
    triton: SamplingTriton,
    path: str,
    body: dict[str, Any],
    said: str,
    param: str | None,
    told: str,
    stream: bool,
) -> None:
    triton.plays.append(pieces(then=Refuse(grpc.StatusCode.INTERNAL, f"INVALID_ARG: {said}")))
    answer = await gateway.client.post(f"/v1/{path}", json={**body, "stream": stream})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["message"]) == (400, param, told)


async def test_the_model_is_listed(client: openai.AsyncOpenAI, gateway: Gateway) -> None:
    models = [model async for model in client.models.list()]
    assert [(model.id, model.object) for model in models] == [("course", "model")]
    assert (await client.models.retrieve("course")).id == "course"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("some/other")
    listed = (await gateway.client.get("/v1/models")).json()["data"][0]
    assert listed["max_model_len"] == 512


async def test_another_model_is_not_found(client: openai.AsyncOpenAI, triton: SamplingTriton) -> None:
    with pytest.raises(openai.NotFoundError, match="'course' is") as caught:
        await complete(client, "a", model="gpt-4o")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert not triton.samples


UNSUPPORTED: list[tuple[str, dict[str, Any]]] = [
    ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("functions", {"functions": [{"name": "f"}]}),
    ("audio", {"audio": {"voice": "alloy", "format": "wav"}}),
    ("modalities.0", {"modalities": ["audio"]}),
    ("store", {"store": True}),
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("nonsense", {"nonsense": 1}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("temperature", {"temperature": -1}),
    ("n", {"n": 0}),
    ("max_tokens", {"max_tokens": 0}),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
    ("response_format.type", {"response_format": {"type": "xml"}}),
    ("response_format.nonsense", {"response_format": {"type": "text", "nonsense": 1}}),
    (
        "json_schema.nonsense",
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "nonsense": 1}}},
    ),
    ("messages", {"messages": []}),
    ("messages.0.role", {"messages": [{"role": "tool", "content": "x"}]}),
    ("messages.0.content", {"messages": [{"role": "user"}]}),
    ("messages.0.tool_calls", {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}),
    ("messages.0.content", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
    ("logit_bias", {"logit_bias": {"x": 1}}),
]


@pytest.mark.parametrize("param, fields", UNSUPPORTED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(UNSUPPORTED)])
async def test_what_a_chat_cannot_have_is_refused_by_name(
    gateway: Gateway, triton: SamplingTriton, param: str, fields: dict[str, Any]
) -> None:
    answer = await gateway.client.post("/v1/chat/completions", json={"messages": HELLO, **fields})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error.keys() == {"type", "message", "param", "code", "request_id"}
    assert param in error["param"]
    assert param in error["message"]
    assert not triton.samples


@pytest.mark.parametrize(
    "param, fields",
    [
        ("suffix", {"suffix": "x"}),
        ("best_of", {"best_of": 3}),
        ("echo", {"echo": True, "logprobs": 1}),
        ("echo", {"prompt": [1], "echo": True, "stream": True}),
        ("logprobs", {"logprobs": 21}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": [[]]}),
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": ["a", ""]}),
        ("prompt", {"prompt": ["a", 1]}),
        ("prompt", {"prompt": [1, "a"]}),
        ("prompt", {"prompt": [-1]}),
        ("prompt", {"prompt": [True]}),
        ("prompt", {"prompt": {"a": 1}}),
    ],
)
async def test_what_a_completion_cannot_have_is_refused_by_name(
    client: openai.AsyncOpenAI, triton: SamplingTriton, param: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError, match=param) as caught:
        await complete(client, fields.pop("prompt", "a"), **fields)
    assert caught.value.param == param
    assert not triton.samples


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"messages": NaN}', b"[" * 10_000, b'{"a":"\\ud800"}'])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_what_is_no_json_is_400(gateway: Gateway, path: str, body: bytes) -> None:
    answer = await gateway.client.post(path, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"]


async def test_too_many_answers_are_413(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="at most 2048") as caught:
        await complete(client, ["a"] * 1025, n=2)
    assert caught.value.status_code == 413


async def test_unknown_paths_are_not_found(gateway: Gateway) -> None:
    answer = await gateway.client.post("/v1/embeddings", json={})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
