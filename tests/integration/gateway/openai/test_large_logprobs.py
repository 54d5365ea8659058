"""Large answers with log probabilities on the wire, and what is lost of them midway."""

from __future__ import annotations

from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from tests.fakes.sampling_triton import Part, SamplingTriton, parts, pieces
from tests.fakes.triton_server import Refuse
from tests.integration.gateway.harness import Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "".join(chr(ord("一") + place) for place in range(400))
WISH: dict[str, Any] = {"prompt": TEXT, "n": 3, "max_tokens": len(TEXT), "logprobs": 20}


async def test_a_large_answer_arrives_whole(gateway: Gateway) -> None:
    answer = await gateway.client.post("/v1/completions", json=WISH)
    assert int(answer.headers["content-length"]) == len(answer.content) > 300_000
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    for choice in choices:
        assert choice["text"] == TEXT
        assert choice["logprobs"]["tokens"] == list(TEXT)
        assert choice["logprobs"]["text_offset"] == list(range(len(TEXT)))
        assert len(choice["logprobs"]["top_logprobs"]) == len(TEXT)


async def test_rows_may_come_apart_and_in_any_order(gateway: Gateway, triton: SamplingTriton) -> None:
    triton.plays.append(parts([Part(2, "丙", "stop")], [Part(0, "甲", "stop"), Part(1, "乙", "length")]))
    answer = await gateway.client.post("/v1/completions", json={**WISH, "logprobs": 1})
    assert "partial" in triton.samples[0].flags
    assert [(choice["text"], choice["finish_reason"]) for choice in answer.json()["choices"]] == [
        ("甲", "stop"),
        ("乙", "length"),
        ("丙", "stop"),
    ]


async def test_rows_that_came_before_the_model_was_lost_are_asked_for_again(triton: SamplingTriton) -> None:
    triton.plays.append(pieces("甲", then=Refuse(grpc.StatusCode.UNAVAILABLE, "Socket closed")))
    async with running_gateway(triton) as gateway:
        answer = await gateway.client.post("/v1/completions", json={"prompt": "乙", "logprobs": 1})
    assert answer.json()["choices"][0]["text"] == "乙"
    assert answer.json()["usage"]["completion_tokens"] == 1
    assert len(triton.samples) == 2
