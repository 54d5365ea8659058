"""Clients that are slow on purpose or by nature: they cost little, hold nobody up, and are dropped in the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import event_stream, http_protocol
from tests.fakes.sampling_triton import Part, Play, SampleCall, SamplingTriton
from tests.fakes.triton_server import FakeTriton, say
from tests.integration.gateway.harness import Gateway, running_gateway
from tests.unit.gateway.waiting import until

CROWD = 200
LONG = "x" * 20_000_000
PIECE, ENDLESS = "x" * 10_000, 10_000  # a hundred megabytes


@asynccontextmanager
async def playing(play: Play) -> AsyncIterator[SamplingTriton]:
    """A fake Triton that answers sample requests like this."""
    triton = SamplingTriton()
    triton.play = play
    await triton.start()
    try:
        yield triton
    finally:
        await triton.stop()


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

    async with playing(endless) as triton, running_gateway(triton) as gateway:
        wanted = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        _, writer = await _ask(gateway, b"/v1/chat/completions", wanted, b"keep-alive")
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


@pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
async def test_a_client_that_reads_nothing_of_its_answer_is_dropped(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, connection: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_S", 0.5)
    triton.script.append(say(LONG))
    async with running_gateway(triton) as gateway:
        reader, writer = await _ask(gateway, b"/predict", {"prompt": "a"}, connection)
        await reader.readexactly(10)
        await until(lambda: len(gateway.server.server_state.connections) <= 1)  # the test's own client
        writer.close()


async def test_a_client_that_reads_slowly_gets_its_whole_answer(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_S", 2.0)
    triton.script.append(say(LONG))
    async with running_gateway(triton) as gateway:
        reader, writer = await _ask(gateway, b"/predict", {"prompt": "a"}, b"close")
        received, began = 0, time.monotonic()
        while piece := await reader.read(1_000_000):  # up to 128 kB of it
            received += len(piece)
            await asyncio.sleep(0.02)
        assert received > len(LONG)
        assert time.monotonic() - began > http_protocol.UNREAD_S
        writer.close()


async def test_a_stream_that_nobody_reads_ends_after_its_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_stream, "_READER_SLACK_S", 0.5)

    async def endless(call: SampleCall) -> AsyncIterator[list[Part]]:
        while True:
            yield [Part(0, PIECE)]

    async with playing(endless) as triton:
        async with running_gateway(triton, REQUEST_TIMEOUT_S="2") as gateway:
            wanted = {"messages": [{"role": "user", "content": "a"}], "stream": True}
            _, writer = await _ask(gateway, b"/v1/chat/completions", wanted, b"keep-alive")
            await until(lambda: bool(triton.samples))
            await until(lambda: len(gateway.server.server_state.connections) <= 1)  # the test's own client
            writer.close()
        told = {record.name for record in caplog.records if record.levelname == "ERROR"}
        assert not told & {"uvicorn.error", "gateway.event_stream", "gateway.request"}


async def test_a_second_signal_does_not_wait_for_a_stream_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_FAREWELL_S", 0.2)

    async def endless(call: SampleCall) -> AsyncIterator[list[Part]]:
        while True:
            yield [Part(0, PIECE)]

    async with playing(endless) as triton, running_gateway(triton, SHUTDOWN_GRACE_S="600") as gateway:
        wanted = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        _, writer = await _ask(gateway, b"/v1/chat/completions", wanted, b"keep-alive")
        await until(lambda: bool(triton.samples))
        await asyncio.sleep(0.5)  # until both sides' buffers are full
        gateway.server.begin_shutdown()
        gateway.server.begin_shutdown()
        await until(lambda: gateway.server.should_exit)
        writer.close()


async def _ask(
    gateway: Gateway, path: bytes, wanted: dict[str, Any], connection: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps(wanted).encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (path, connection, len(body)) + body)
    return reader, writer
