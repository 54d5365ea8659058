"""Chats of OpenAI's API while the model is not ready, or has become another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.sampling_triton import SamplingTriton
from tests.fakes.triton_server import hang
from tests.integration.gateway.harness import Gateway, running_gateway
from tests.unit.gateway.waiting import until_async

PATH = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "你好"}]}  # no max_tokens: the default is the model's to tell


@pytest.fixture
async def triton() -> AsyncIterator[SamplingTriton]:
    triton = SamplingTriton()
    await triton.start()
    yield triton
    await triton.stop()


async def test_a_chat_without_a_limit_waits_for_the_model_like_any_other_request(triton: SamplingTriton) -> None:
    triton.probe = hang()
    async with running_gateway(triton, MAX_QUEUE="1", wait=False) as gateway:
        leaving = asyncio.create_task(gateway.client.post(PATH, json=BODY))
        await until_async(lambda: _has_in_flight(gateway, 1))
        refused = await gateway.client.post(PATH, json=BODY)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "queue_full")
        leaving.cancel()
        await until_async(lambda: _has_in_flight(gateway, 0))
    assert not triton.samples


async def test_a_model_that_comes_back_with_another_length_is_asked_for_it(triton: SamplingTriton) -> None:
    async with running_gateway(triton) as gateway:
        await gateway.client.post(PATH, json=BODY)
        await triton.stop()
        await until_async(lambda: _is_lost(gateway))
        triton.info["max_model_len"] = 99
        await triton.start()
        await gateway.wait_ready()
        await gateway.client.post(PATH, json=BODY)
    assert [sample.parameters["max_tokens"] for sample in triton.samples] == [512, 99]


async def _has_in_flight(gateway: Gateway, prompts: int) -> bool:
    return await gateway.prompts_in_flight() == prompts


async def _is_lost(gateway: Gateway) -> bool:
    return not await gateway.is_ready()
