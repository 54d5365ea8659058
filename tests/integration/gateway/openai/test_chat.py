"""Chats as the official client sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc  # type: ignore[import-untyped]
import openai
import pytest

from tests.fakes.sampling_triton import SamplingTriton, pieces
from tests.fakes.triton_server import Refuse
from tests.integration.gateway.harness import Gateway, running_gateway
from tests.integration.gateway.openai.conftest import client_of
from tests.unit.gateway.waiting import until, until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: Any = [{"role": "user", "content": "你好"}]


async def chat(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    return await client.chat.completions.create(**{"model": "course", "messages": HELLO, **fields})


async def read(stream: Awaitable[Any], texts: list[str | None]) -> None:
    """Read a stream to its end, noting the texts."""
    async for chunk in await stream:
        texts.append(chunk.choices[0].delta.content)  # noqa: PERF401  # what came before an error counts


async def test_an_answer(client: openai.AsyncOpenAI, triton: SamplingTriton) -> None:
    answer = await chat(client)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "你好", "stop")
    assert choice.logprobs is None
    assert (answer.object, answer.model) == ("chat.completion", "course")
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
    }
    assert triton.samples[0].prompts == [HELLO]
    assert triton.samples[0].parameters == {"max_tokens": 512, "n": 1}  # the model's length, which the model cuts


async def test_the_synchronous_client(gateway: Gateway) -> None:
    def ask() -> tuple[Any, list[Any]]:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none") as client:
            answer = client.chat.completions.create(model="course", messages=HELLO)
            stream = client.chat.completions.create(model="course", messages=HELLO, stream=True)
            return answer, list(stream)

    answer, chunks = await asyncio.to_thread(ask)
    assert answer.choices[0].message.content == "你好"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "你好"


async def test_what_the_model_sees_is_what_was_sent(client: openai.AsyncOpenAI, triton: SamplingTriton) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Eve"},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None},
        {"role": "user", "content": ""},
    ]
    triton.plays.append(pieces())
    await chat(client, messages=messages)
    assert triton.samples[0].prompts == [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a\nb", "name": "Eve"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": ""},
        ]
    ]


async def test_every_parameter_reaches_the_model(client: openai.AsyncOpenAI, triton: SamplingTriton) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await chat(
        client,
        temperature=0.5,
        top_p=0.9,
        n=2,
        stop=["x", "y"],
        seed=7,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"17": -100},
        max_completion_tokens=9,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}},
        user="u",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
        tool_choice="none",
        extra_body={"top_k": 5, "ignore_eos": True, "min_tokens": 2, "stop_token_ids": [3]},
    )
    assert triton.samples[0].parameters == {
        "temperature": 0.5,
        "top_p": 0.9,
        "n": 2,
        "stop": ["x", "y"],
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"17": -100.0},
        "max_tokens": 9,
        "structured_outputs": {"json": schema},
        "top_k": 5,
        "ignore_eos": True,
        "min_tokens": 2,
        "stop_token_ids": [3],
    }


@pytest.mark.parametrize("wanted, sent", [({"type": "text"}, None), ({"type": "json_object"}, {"json_object": True})])
async def test_response_formats(client: openai.AsyncOpenAI, triton: SamplingTriton, wanted: Any, sent: Any) -> None:
    await chat(client, response_format=wanted)
    assert triton.samples[0].parameters.get("structured_outputs") == sent


async def test_samples_and_the_true_finish_reason(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, n=3, max_tokens=1)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        (index, "你", "length") for index in range(3)
    ]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 3)


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    answer = await chat(client, messages=[{"role": "user", "content": "aé"}], logprobs=True, top_logprobs=4)
    first, second = answer.choices[0].logprobs.content
    assert (first.token, first.logprob, first.bytes) == ("a", -0.5, [97])
    assert [(top.token, top.logprob) for top in first.top_logprobs] == [
        ("a", -0.5),
        ("b", -1.5),
        ("c", -2.5),
        ("d", -9999.0),
    ]
    assert (second.token, second.bytes) == ("é", [0xC3, 0xA9])

    without_top = await chat(client, logprobs=True)
    assert [token.top_logprobs for token in without_top.choices[0].logprobs.content] == [[], []]


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await chat(client, stream=True)]
    assert {(chunk.object, chunk.model, chunk.id) for chunk in chunks} == {
        ("chat.completion.chunk", "course", chunks[0].id)
    }
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "你", "好", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_streams_usage(client: openai.AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await chat(client, stream=True, n=2, stream_options={"include_usage": True})]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (2, 4)


async def test_the_usage_so_far_in_every_event(client: openai.AsyncOpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = [chunk async for chunk in await chat(client, stream=True, stream_options=options)]
    assert [chunk.usage.completion_tokens for chunk in chunks] == [1, 1, 2, 2, 2]


async def test_a_stream_of_samples_with_logprobs(client: openai.AsyncOpenAI) -> None:
    texts, tokens = ["", ""], ["", ""]
    async for chunk in await chat(client, stream=True, n=2, logprobs=True, top_logprobs=1):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.logprobs:
            tokens[choice.index] += "".join(token.token for token in choice.logprobs.content)
    assert texts == tokens == ["你好", "你好"]


async def test_the_stream_as_it_is_on_the_wire(gateway: Gateway) -> None:
    answer = await gateway.client.post("/v1/chat/completions", json={"messages": HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") for event in events[:-1])
    assert answer.headers["x-request-id"]


async def test_a_fault_midway_is_an_error_of_the_client(client: openai.AsyncOpenAI, triton: SamplingTriton) -> None:
    triton.plays.append(pieces("甲", then=Refuse(grpc.StatusCode.INTERNAL, "INTERNAL: the engine failed")))
    seen: list[str | None] = []
    with pytest.raises(openai.APIError, match="the engine failed"):
        await read(chat(client, stream=True), seen)
    assert seen == ["", "甲"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_before_the_first_piece_has_its_status(
    client: openai.AsyncOpenAI, triton: SamplingTriton, stream: bool
) -> None:
    text = "INVALID_ARG: the prompt has 600 tokens; allowed are 1 to 511"
    triton.plays.append(pieces(then=Refuse(grpc.StatusCode.INVALID_ARGUMENT, text)))
    with pytest.raises(openai.BadRequestError, match="600 tokens") as caught:
        await chat(client, stream=stream)
    assert caught.value.type == "invalid_value"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_lost_with_its_model_is_sent_again_unless_begun(triton: SamplingTriton, stream: bool) -> None:
    lost = Refuse(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    async with running_gateway(triton, SERVED_MODEL_NAME="course") as gateway, client_of(gateway) as client:
        triton.plays += [pieces(then=lost)]
        if stream:
            chunks = [chunk async for chunk in await chat(client, stream=True)]
            assert chunks[-1].choices[0].finish_reason == "stop"
        else:
            assert (await chat(client)).choices[0].message.content == "你好"
        assert len(triton.samples) == 2
        triton.plays += [pieces("甲", then=lost)]
        if stream:
            with pytest.raises(openai.APIError, match="not available"):
                await read(chat(client, stream=True), [])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_stops_its_generation(
    client: openai.AsyncOpenAI, gateway: Gateway, triton: SamplingTriton, stream: bool
) -> None:
    triton.plays.append(pieces("甲", hang=True))
    asked = asyncio.create_task(chat(client, stream=stream))
    if stream:
        await (await asked).close()
    else:
        await until(lambda: bool(triton.samples))
        asked.cancel()
    await asyncio.wait_for(triton.samples[0].ended.wait(), 2)
    assert triton.samples[0].was_cancelled

    async def idle() -> bool:
        return await gateway.prompts_in_flight() == 0

    await until_async(idle)


async def test_the_deadline_ends_a_stream_with_an_error(triton: SamplingTriton) -> None:
    triton.plays.append(pieces("甲", hang=True))
    async with (
        running_gateway(triton, SERVED_MODEL_NAME="course", REQUEST_TIMEOUT_S="0.5") as gateway,
        client_of(gateway) as client,
    ):
        with pytest.raises(openai.APIError, match="in time"):
            await read(chat(client, stream=True), [])


async def test_a_shutdown_ends_a_stream_with_an_error(triton: SamplingTriton) -> None:
    triton.plays.append(pieces("甲", hang=True))
    async with running_gateway(triton, SERVED_MODEL_NAME="course") as gateway, client_of(gateway) as client:
        stream = asyncio.create_task(chat(client, stream=True))
        await until(lambda: bool(triton.samples))
        await stream
        gateway.server.begin_shutdown()
        gateway.server.begin_shutdown()
        with pytest.raises(openai.APIError, match="shut down"):
            await read(stream, [])
