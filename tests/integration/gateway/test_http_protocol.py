"""One connection: requests that ask for another protocol, and requests that are sent ahead of their turn."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import http_protocol
from gateway.http_parser import RequestParser
from gateway.http_protocol import GatewayHttpProtocol
from tests.fakes.sampling_triton import Part, SampleCall, SamplingTriton
from tests.fakes.triton_server import FakeTriton, hang, wait_for
from tests.integration.gateway.harness import Gateway, running_gateway
from tests.unit.gateway.waiting import until, until_async

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def ask(prompt: str, headers: bytes = b"") -> bytes:
    body = json.dumps({"prompt": prompt}).encode()
    return b"POST /predict HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (headers, len(body), body)


def ask_in_chunks(prompt: str, headers: bytes = b"") -> bytes:
    first, rest = b'{"prompt": ', json.dumps(prompt).encode() + b"}"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n" % headers
    return head + b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(first), first, len(rest), rest)


class Client:
    """A connection, and the gateway's side of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gateway: Gateway) -> None:
        self.reader = reader
        self.writer = writer
        self._gateway = gateway

    @property
    def served(self) -> GatewayHttpProtocol:
        (found,) = self._connections()
        assert isinstance(found, GatewayHttpProtocol)
        return found

    @property
    def is_served(self) -> bool:
        return bool(self._connections())

    def _connections(self) -> list[Any]:
        port = self.writer.get_extra_info("sockname")[1]
        return [one for one in self._gateway.server.server_state.connections if one.client[1] == port]

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, Any]:
        """The status of the next answer, and its JSON."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
        body = await self.reader.readexactly(int(fields[b"content-length"]))
        return int(head.split()[1]), json.loads(body)

    async def refusal(self) -> int:
        """The status of the last answer, after which the connection is closed."""
        status, _ = await self.answer()
        assert await asyncio.wait_for(self.reader.read(), 10) == b""
        return status

    async def is_silent_for(self, seconds: float) -> bool:
        """Whether neither anything nor the end comes; what comes is lost."""
        reading = asyncio.ensure_future(self.reader.read(1))
        done, _ = await asyncio.wait({reading}, timeout=seconds)
        reading.cancel()
        await asyncio.wait({reading})
        return not done

    async def until_ahead(self, count: int = 1) -> None:
        """Wait until the gateway knows so many requests that wait for their turn."""
        await until(lambda: len(self.served.pipeline) == count)


@asynccontextmanager
async def connection(gateway: Gateway) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", gateway.port), gateway)
    await until(lambda: client.is_served)
    try:
        yield client
    finally:
        client.writer.close()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Requests that ask for another protocol


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("request_of", [ask, ask_in_chunks])
async def test_a_request_for_another_protocol_is_answered_like_any_other(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, upgrade: bytes, request_of: Any
) -> None:
    async with connection(gateway) as client:
        for prompt in ("a", "b"):  # on one connection
            client.send(request_of(prompt, upgrade))
            assert await client.answer() == (200, {"response": prompt})
        client.send(request_of("c", upgrade) + request_of("d", upgrade) + ask("e"))
        assert [await client.answer() for _ in range(3)] == [(200, {"response": prompt}) for prompt in "cde"]
    assert not warnings_in(caplog)


async def test_its_body_may_come_later(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    head, _, body = ask("a", H2C + b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    async with connection(gateway) as client:
        client.send(head + b"\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert await client.answer() == (200, {"response": "a"})
        client.send(LIVE)
        assert (await client.answer())[0] == 200
    assert not warnings_in(caplog)


@pytest.mark.parametrize("path, status", [(b"/", 200), (b"/nowhere", 404), (b"/predict", 405)])
async def test_a_web_socket_is_an_ordinary_request(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, path: bytes, status: int
) -> None:
    async with connection(gateway) as client:
        client.send(b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path, WEBSOCKET))
        assert (await client.answer())[0] == status
        client.send(ask("a"))
        assert await client.answer() == (200, {"response": "a"})
    assert not warnings_in(caplog)


async def test_it_may_close_the_connection(gateway: Gateway) -> None:
    async with connection(gateway) as client:
        client.send(ask("a", b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n"))
        assert await client.refusal() == 200


class Heard:
    """What a parser says, bodies joined."""

    def __init__(self) -> None:
        self.parser = RequestParser(self)  # type: ignore[arg-type]
        self.requests: list[Any] = []

    def on_message_begin(self) -> None:
        self.url, self.headers = b"", list[tuple[bytes, bytes]]()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if not self.parser.is_to_be_read_again():
            self.requests.append([self.parser.get_method(), self.url, self.headers, b""])

    def on_body(self, body: bytes) -> None:
        self.requests[-1][-1] += body

    def on_message_complete(self) -> None:
        if not self.parser.is_to_be_read_again():
            self.requests[-1].append("complete")


@pytest.mark.parametrize("request_of", [ask, ask_in_chunks])
def test_where_the_segments_are_cut_does_not_matter(request_of: Any) -> None:
    connection_field, upgrade_field = b"Connection: upgrade,x\r\n", b"UPGRADE: a\r\nUpgrade:  b \r\n"
    data = request_of("a", connection_field + upgrade_field) + ask("b") + request_of("c", upgrade_field)
    plain = request_of("a", connection_field) + ask("b") + request_of("c", upgrade_field)
    expected = Heard()
    expected.parser.feed_data(plain)
    cuts = [[data[:cut], data[cut:]] for cut in range(len(data) + 1)]
    for segments in [*cuts, [data[place : place + 1] for place in range(len(data))]]:
        heard = Heard()
        for segment in segments:
            heard.parser.feed_data(segment)
        assert heard.requests == expected.requests
    assert [request[-1] for request in expected.requests] == ["complete"] * 3


# Clients that go away


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_client_that_sent_more_and_goes_away_stops_its_generation(
    gateway: Gateway, triton: FakeTriton, at_once: bool
) -> None:
    triton.default = hang()
    async with connection(gateway) as client:
        client.send(ask("a") + LIVE if at_once else ask("a"))
        await triton.wait_for_calls(1)
        if not at_once:
            client.send(LIVE)
        await client.until_ahead()
    await asyncio.wait_for(triton.calls[0].ended.wait(), 2)
    assert triton.calls[0].was_cancelled
    assert await gateway.prompts_in_flight() == 0


@pytest.mark.parametrize(
    "more",
    [LIVE, LIVE * 10, LIVE[:-4], ask("b")[:-1], b"GARBAGE\r\n\r\n"],
    ids=["one", "ten", "headers", "body", "garbage"],
)
async def test_a_client_that_goes_away_is_noticed_whatever_it_sent(
    gateway: Gateway, triton: FakeTriton, more: bytes
) -> None:
    triton.default = hang()
    async with connection(gateway) as client:
        client.send(ask("a"))
        await triton.wait_for_calls(1)
        client.send(more)
        await client.writer.drain()
    await asyncio.wait_for(triton.calls[0].ended.wait(), 2)
    assert len(triton.calls) == 1


async def test_a_stream_whose_client_sent_more_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def endless(call: SampleCall) -> AsyncIterator[list[Part]]:
        while True:
            yield [Part(0, "x" * 1000)]
            await asyncio.sleep(0.001)

    caplog.set_level(logging.INFO, "gateway.request")
    triton = SamplingTriton()
    triton.play = endless
    await triton.start()
    try:
        async with running_gateway(triton) as gateway:
            async with connection(gateway) as client:
                client.send(ask("a", b"Accept: text/event-stream\r\n"))
                await client.reader.readuntil(b"data: ")
                client.send(LIVE)
                await client.until_ahead()
            await asyncio.wait_for(triton.samples[0].ended.wait(), 5)
            await until_async(lambda: _is_idle(gateway))
    finally:
        await triton.stop()
    assert not warnings_in(caplog)
    told: list[Any] = [record.__dict__["fields"] for record in caplog.records if record.name == "gateway.request"]
    assert [entry["status"] for entry in told if entry["route"] == "POST /predict"] == [499]


async def _is_idle(gateway: Gateway) -> bool:
    return await gateway.prompts_in_flight() == 0


# Many requests ahead


async def test_what_is_sent_ahead_is_not_gathered_in_memory(gateway: Gateway, triton: FakeTriton) -> None:
    count, gate = 3000, asyncio.Event()
    triton.script.append(wait_for(gate))
    padded = LIVE.replace(b"\r\n\r\n", b"\r\nX-Padding: %s\r\n\r\n" % (b"x" * 2000))
    async with connection(gateway) as client:
        client.send(ask("a"))
        await triton.wait_for_calls(1)
        client.send(padded * count)
        await until(lambda: client.served.flow.read_paused)
        most = len(client.served.pipeline)
        assert most < count // 4
        gate.set()
        assert await client.answer() == (200, {"response": "a"})
        for _ in range(count):
            assert (await client.answer())[0] == 200
            most = max(most, len(client.served.pipeline))
        assert most < count // 4


async def test_a_large_body_ahead_waits_outside(gateway: Gateway, triton: FakeTriton) -> None:
    gate, large = asyncio.Event(), "x" * 8_000_000
    triton.script.append(wait_for(gate))
    async with connection(gateway) as client:
        client.send(ask("a"))
        await triton.wait_for_calls(1)
        client.send(ask(large))
        await until(lambda: client.served.flow.read_paused)
        assert len(client.served.cycle.body) < 1_000_000
        gate.set()
        assert await client.answer() == (200, {"response": "a"})
        assert (await client.answer())[0] == 200


# What is wrong with a later request


async def test_a_later_body_has_its_whole_time(
    gateway: Gateway, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "_DISCARD_S", 0.2)
    gate = asyncio.Event()
    triton.script.append(wait_for(gate))
    async with connection(gateway) as client:
        client.send(ask("a"))
        await triton.wait_for_calls(1)
        client.send(ask("b")[:-3])
        await client.until_ahead()
        gate.set()
        assert await client.answer() == (200, {"response": "a"})
        assert await client.is_silent_for(0.6)
        client.send(ask("b")[-3:])
        assert await client.answer() == (200, {"response": "b"})


async def test_late_headers_of_a_later_request_do_not_end_the_running_one(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_TIMEOUT_S", 0.3)
    gate = asyncio.Event()
    triton.script.append(wait_for(gate))
    async with running_gateway(triton) as gateway, connection(gateway) as client:
        client.send(ask("a") + LIVE[:20])
        await triton.wait_for_calls(1)
        assert await client.is_silent_for(0.8)
        gate.set()
        assert await client.answer() == (200, {"response": "a"})
        assert await client.refusal() == 408  # its own time begins here


@pytest.mark.parametrize(
    "more, status",
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"x" * 70_000), 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 400_000, 431),
    ],
    ids=["no HTTP", "bad header", "bad body", "large header", "endless header"],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_later_request_is_refused_after_the_answer_to_the_running_one(
    gateway: Gateway, triton: FakeTriton, more: bytes, status: int, at_once: bool
) -> None:
    gate = asyncio.Event()
    triton.script.append(wait_for(gate))
    async with connection(gateway) as client:
        client.send(ask("a") + LIVE + more if at_once else ask("a"))
        await triton.wait_for_calls(1)
        if not at_once:
            client.send(LIVE + more)
        assert await client.is_silent_for(0.2)
        gate.set()
        assert await client.answer() == (200, {"response": "a"})
        assert (await client.answer())[0] == 200
        assert await client.refusal() == status


async def test_a_bad_body_of_the_running_request_is_refused_at_once(gateway: Gateway) -> None:
    async with connection(gateway) as client:
        client.send(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        await until(lambda: client.served.cycle is not None)
        client.send(b"none\r\n")
        assert await client.refusal() == 400
