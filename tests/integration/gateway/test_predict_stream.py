"""``/predict`` as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest

from gateway import event_stream
from tests.fakes.sampling_triton import SamplingTriton, pieces
from tests.fakes.triton_server import Refuse, hang
from tests.integration.gateway.harness import Gateway, error_of, running_gateway
from tests.unit.gateway.waiting import until, until_async

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
async def triton() -> AsyncIterator[SamplingTriton]:
    triton = SamplingTriton()
    await triton.start()
    try:
        yield triton
    finally:
        await triton.stop()


async def ask(gateway: Gateway, prompt: Any, **fields: Any) -> httpx.Response:
    return await gateway.client.post("/predict", json={"prompt": prompt, **fields}, headers=EVENTS)


def data_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The data of all events, heartbeats left out."""
    events = [event for event in answer.text.split("\n\n") if event and not event.startswith(":")]
    return [json.loads(event.removeprefix("event: error\n").removeprefix("data: ")) for event in events]


async def test_the_pieces_are_the_answer_that_comes_unstreamed(gateway: Gateway, triton: SamplingTriton) -> None:
    text = "<think>嗯</think>一。二。三。四。五。六。七。"
    triton.plays.append(pieces(*text))
    answer = await ask(gateway, "什么是线程？")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, final = data_of(answer)
    assert final == {"response": "一。二。三。四。五。六。", "finish_reason": "stop"}
    assert "".join(event["delta"] for event in deltas) == final["response"]
    assert len(deltas) > 6
    assert triton.samples[0].prompts[0][-1] == {"role": "user", "content": "什么是线程？"}
    assert triton.samples[0].parameters["max_tokens"] == 64


async def test_a_piece_is_sent_before_the_next_one_is_there(gateway: Gateway, triton: SamplingTriton) -> None:
    triton.plays.append(pieces("甲", hang=True))
    async with gateway.client.stream("POST", "/predict", json={"prompt": "a"}, headers=EVENTS) as answer:
        first = await anext(answer.aiter_text())
        assert first == 'data: {"delta":"甲"}\n\n'
    await asyncio.wait_for(triton.samples[0].ended.wait(), 2)  # the client is gone
    assert triton.samples[0].was_cancelled

    async def idle() -> bool:
        return await gateway.prompts_in_flight() == 0

    await until_async(idle)


async def test_the_true_finish_reason(gateway: Gateway) -> None:
    assert data_of(await ask(gateway, "甲乙丙", max_new_tokens=2))[-1] == {
        "response": "甲乙",
        "finish_reason": "length",
    }


@pytest.mark.parametrize(
    "prompt, fields, status", [(["a"], {}, 400), ("", {}, 400), ("a", {"temperature": -1}, 400), (7, {}, 422)]
)
async def test_what_is_wrong_beforehand_has_its_status(
    gateway: Gateway, prompt: Any, fields: dict[str, Any], status: int
) -> None:
    answer = await ask(gateway, prompt, **fields)
    assert answer.status_code == status
    assert error_of(answer)["message"]


async def test_a_fault_midway_is_an_error_event(gateway: Gateway, triton: SamplingTriton) -> None:
    triton.plays.append(pieces("甲", then=Refuse(grpc.StatusCode.INTERNAL, "INTERNAL: the engine failed")))
    answer = await ask(gateway, "a")
    assert answer.status_code == 200
    assert "event: error\ndata: " in answer.text
    first, error = data_of(answer)
    assert first == {"delta": "甲"}
    assert error["error"]["type"] == "model_failed"
    assert error["error"]["request_id"] == answer.headers["x-request-id"]


async def test_heartbeats_while_nothing_comes(
    gateway: Gateway, triton: SamplingTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.05)
    triton.plays.append(pieces(hang=True))
    async with gateway.client.stream("POST", "/predict", json={"prompt": "a"}, headers=EVENTS) as answer:
        found = answer.aiter_text()
        assert (await anext(found)).startswith(":")
        assert (await anext(found)).startswith(":")


async def test_no_model_within_the_time_is_503(triton: SamplingTriton) -> None:
    triton.probe = hang()
    async with running_gateway(triton, wait=False, READY_TIMEOUT_S="0.2") as gateway:
        answer = await ask(gateway, "a")
    assert (answer.status_code, error_of(answer)["type"]) == (503, "not_ready")


async def test_a_client_that_does_not_read_is_dropped(triton: SamplingTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_READER_SLACK_S", 0.2)
    triton.plays.append(pieces(*(["长" * 100_000] * 200)))
    async with running_gateway(triton, REQUEST_TIMEOUT_S="1") as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        body = json.dumps({"prompt": "算子"}).encode()
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await until(lambda: bool(triton.samples))
        await asyncio.wait_for(triton.samples[0].ended.wait(), 5)

        async def idle() -> bool:
            return await gateway.prompts_in_flight() == 0

        await until_async(idle)
        writer.transport.abort()
        del reader
