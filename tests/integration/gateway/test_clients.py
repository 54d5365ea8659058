"""Clients that go away, are slow, or come in crowds."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from gateway import http_protocol
from gateway.readiness import ProbeTimes
from tests.fakes.triton_server import FakeTriton, Row, hang, wait_for
from tests.integration.gateway.harness import Gateway, error_of, running_gateway
from tests.unit.gateway.waiting import until, until_async


def _post(body: bytes) -> bytes:
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("prompt", ["a", ["a", "b", "c"]])
async def test_a_client_that_goes_away_stops_its_generation(
    gateway: Gateway, triton: FakeTriton, prompt: str | list[str]
) -> None:
    triton.default = hang([Row(0, "a")]) if isinstance(prompt, list) else hang()
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(_post(json.dumps({"prompt": prompt}).encode()))
    await triton.wait_for_calls(1)
    writer.close()
    await asyncio.wait_for(triton.calls[0].ended.wait(), 2)
    assert triton.calls[0].was_cancelled
    assert await gateway.prompts_in_flight() == 0


async def test_a_client_that_goes_away_while_the_model_warms_up_is_forgotten(triton: FakeTriton) -> None:
    triton.probe = hang()
    triton.info["engines"] = [{"state": "starting"}]
    async with running_gateway(triton, wait=False) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(_post(b'{"prompt": "a"}'))
        await _until_in_flight(gateway, 1)
        writer.close()
        await _until_in_flight(gateway, 0)
    assert not triton.calls


async def _until_in_flight(gateway: Gateway, count: int) -> None:
    async def holds() -> bool:
        return await gateway.prompts_in_flight() == count

    await until_async(holds)


async def test_a_connection_serves_many_requests(gateway: Gateway) -> None:
    requests = b"".join(_post(b'{"prompt": "q%d"}' % number) for number in range(3))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(requests)
    received = b""
    while received.count(b'{"response":') < 3:
        received += await asyncio.wait_for(reader.read(4096), 10)
    assert [received.index(b'"q%d"' % number) for number in range(3)] == sorted(
        received.index(b'"q%d"' % number) for number in range(3)
    )
    writer.close()


async def test_a_slow_body_is_408(triton: FakeTriton) -> None:
    async with running_gateway(triton, body_timeout_s=0.3) as gateway:
        answer = await gateway.raw(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{"
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"]["type"] == "request_timeout"


async def test_slow_headers_are_408(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_TIMEOUT_S", 0.3)
    async with running_gateway(triton) as gateway:
        answer = await gateway.raw(b"GET / HTTP/1.1\r\nHost:")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert await gateway.raw(b"") == b""  # nothing was said: closed without a word


async def test_the_model_may_take_longer_than_a_body_may(triton: FakeTriton) -> None:
    gate = asyncio.Event()
    triton.script.append(wait_for(gate))
    async with running_gateway(triton, body_timeout_s=0.2) as gateway:
        answer = asyncio.create_task(gateway.predict("a"))
        await triton.wait_for_calls(1)
        await asyncio.wait({answer}, timeout=0.5)
        assert not answer.done()
        gate.set()
        assert (await answer).json() == {"response": "a"}


async def test_a_full_queue_is_429_until_places_are_free(triton: FakeTriton) -> None:
    gate = asyncio.Event()
    triton.script.append(wait_for(gate))
    async with running_gateway(triton, MAX_QUEUE="3") as gateway:
        first = asyncio.create_task(gateway.predict(["a", "b"]))
        await triton.wait_for_calls(1)
        refused = await gateway.predict(["c", "d"])
        assert (refused.status_code, error_of(refused)["type"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) > 0
        assert (await gateway.predict("e")).status_code == 200
        gate.set()
        assert (await first).status_code == 200
        assert (await gateway.predict(["c", "d"])).status_code == 200
        assert (await gateway.predict(["a"] * 4)).status_code == 413  # such a list never finds places


async def test_a_crowd_is_answered_or_told_to_come_again(triton: FakeTriton) -> None:
    async with running_gateway(triton, probe_times=ProbeTimes(), MAX_QUEUE="50") as gateway:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=gateway.client.base_url, limits=limits, timeout=60, trust_env=False
        ) as crowd:
            answers = await asyncio.gather(*(crowd.post("/predict", json={"prompt": f"q{n}"}) for n in range(150)))
        assert {answer.status_code for answer in answers} <= {200, 429}
        await _until_in_flight(gateway, 0)
        assert (await gateway.predict(["a"] * 50)).status_code == 200


async def test_health_is_answered_while_a_large_batch_is_worked_on(triton: FakeTriton) -> None:
    async with running_gateway(triton, probe_times=ProbeTimes()) as gateway:
        batch = asyncio.create_task(gateway.predict([f"问题 {number}" for number in range(10_000)]))
        polls = 0
        while not batch.done():
            assert (await gateway.client.get("/")).json() == {"status": "ok"}
            polls += 1
        assert batch.result().status_code == 200
    assert polls > 1


async def test_all_connections_of_a_lost_crowd_are_let_go(gateway: Gateway, triton: FakeTriton) -> None:
    triton.default = hang()
    writers = []
    for number in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(_post(b'{"prompt": "q%d"}' % number))
        writers.append(writer)
    await triton.wait_for_rows(20)
    for writer in writers:
        writer.transport.abort()
    await until(lambda: all(call.ended.is_set() for call in triton.calls))
    await _until_in_flight(gateway, 0)
    await until(lambda: len(gateway.server.server_state.connections) <= 1)
