"""Clients that are slow on purpose or by nature: they cost little, hold nobody up, and are dropped in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gateway import http_protocol
from tests.fakes.sampling_triton import Part, SampleCall, SamplingTriton
from tests.fakes.triton_server import FakeTriton
from tests.integration.gateway.harness import running_gateway
from tests.unit.gateway.waiting import until

CROWD = 200
PIECE, ENDLESS = "x" * 10_000, 10_000  # a hundred megabytes


async def test_half_sent_requests_hold_nobody_up_and_are_dropped(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_TIMEOUT_S", 3.0)
    beginnings = [
        b"",
        b"POST /predict HTTP/1.1\r\nHost:",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ]
    async with running_gateway(triton, body_timeout_s=3.0) as gateway:
        crowd = []
        for number in range(CROWD):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(beginnings[number % len(beginnings)])
            crowd.append((reader, writer))
        await until(lambda: len(gateway.server.server_state.connections) > CROWD)
        for _ in range(20):
            assert (await gateway.predict("a")).json() == {"response": "a"}
        endings = await asyncio.gather(*(asyncio.wait_for(reader.read(), 60) for reader, _ in crowd))
        assert not any(endings[:: len(beginnings)])  # nothing was said: closed without a word
        told = [ending for place, ending in enumerate(endings) if place % len(beginnings)]
        assert all(ending.startswith(b"HTTP/1.1 408 ") for ending in told)
        for _, writer in crowd:
            writer.close()
        await until(lambda: len(gateway.server.server_state.connections) <= 2)
        assert await gateway.prompts_in_flight() == 0


async def test_trickling_headers_do_not_prolong_the_time(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_TIMEOUT_S", 1.0)
    async with running_gateway(triton) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET / HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                writer.write(b"X-More: 1\r\n")
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        answer = await asyncio.wait_for(reader.read(), 20)
        trickling.cancel()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_stream_that_nobody_reads_is_not_gathered_in_memory() -> None:
    made = 0

    async def endless(call: SampleCall) -> AsyncIterator[list[Part]]:
        nonlocal made
        for _ in range(ENDLESS):
            made += 1
            yield [Part(0, PIECE)]

    triton = SamplingTriton()
    triton.play = endless
    await triton.start()
    try:
        async with running_gateway(triton) as gateway:
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            body = json.dumps({"messages": [{"role": "user", "content": "a"}], "stream": True}).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            await until(lambda: made > 0)
            before = -1
            while made != before:  # until it stands still
                before = made
                await asyncio.sleep(0.5)
            assert made < ENDLESS // 2
            assert (await gateway.client.get("/")).status_code == 200
            writer.close()
            await asyncio.wait_for(triton.samples[0].ended.wait(), 10)
            assert made < ENDLESS
    finally:
        await triton.stop()
