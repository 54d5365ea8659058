"""Bytes that are no HTTP, too much of it, or more than was announced: refused in the documented form."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest

from tests.fakes.triton_server import FakeTriton
from tests.integration.gateway.harness import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

_POST = b"POST /predict HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        _POST + b'Content-Length: 99\r\n\r\n{"prompt": "a"}',
        _POST + b"Content-Length: -1\r\n\r\n",
        _POST + b"Content-Length: ten\r\n\r\n",
        _POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"NOT HTTP AT ALL\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
    ],
    ids=lambda request: repr(request[-28:]),
)
async def test_broken_framing_is_400_in_json(gateway: Gateway, triton: FakeTriton, request_bytes: bytes) -> None:
    answer = await gateway.raw(request_bytes, end=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request"
    assert f"x-request-id: {error['request_id']}".encode() in head
    assert (await gateway.client.get("/health/live")).status_code == 200


async def test_a_body_longer_than_its_length_is_read_as_a_request_and_then_no_http(gateway: Gateway) -> None:
    answer = await gateway.raw(_POST + b'Content-Length: 10\r\n\r\n{"prompt": "a"}', end=True)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"422", b"400"]


_FILLER = b"".join(b"X-Filler-%d: %s\r\n" % (number, b"a" * 990) for number in range(70))
_CHUNKED = _POST + b'Transfer-Encoding: chunked\r\n\r\nf\r\n{"prompt": "a"}\r\n0\r\n'


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nX-Filler: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + _FILLER + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        _CHUNKED + _FILLER + b"\r\n",
    ],
    ids=["one line", "many lines", "address", "after the body"],
)
async def test_headers_that_are_too_large_are_refused(gateway: Gateway, request_bytes: bytes) -> None:
    answer = await gateway.raw(request_bytes)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET / HTTP/1.1\r\nX-Filler: ",
        b"GET /",
        _CHUNKED + b"X-Filler: ",
        _POST + b"Transfer-Encoding: chunked\r\n\r\nf;",
    ],
    ids=["header", "address", "after the body", "chunk"],
)
async def test_lines_without_an_end_are_refused(gateway: Gateway, beginning: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(beginning)
    answer = asyncio.create_task(reader.readline())
    for _ in range(1_000):
        writer.write(b"a" * 1_000)
        await asyncio.wait({answer}, timeout=0.002)
        if answer.done():
            break
    writer.close()
    assert (await answer).startswith(b"HTTP/1.1 431 ")


async def test_headers_up_to_the_limit_and_many_small_chunks_are_taken(gateway: Gateway) -> None:
    headers = {f"X-Filler-{number}": "a" * 980 for number in range(64)}

    async def chunks() -> AsyncIterator[bytes]:
        for byte in b'{"prompt": "%s"}' % (b"a" * 20_000):
            yield bytes([byte])

    answer = await gateway.client.post("/predict", content=chunks(), headers=headers)
    assert answer.status_code == 200


async def test_what_comes_after_a_chunked_body_is_not_a_header(gateway: Gateway) -> None:
    answer = await gateway.raw(_CHUNKED.replace(b"Host", b"Connection: close\r\nHost") + b"X-Request-Id: late\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"late" not in answer


async def test_a_refusal_keeps_the_callers_id_and_is_logged(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.request")
    answer = await gateway.raw(_POST + b"X-Request-Id: mine-1\r\nContent-Length: 99\r\n\r\n{", end=True)
    assert b"x-request-id: mine-1\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["request_id"] == "mine-1"
    answer = await gateway.raw(b"NOT HTTP AT ALL\r\n\r\n")
    made = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["request_id"]
    refused = [record.fields for record in caplog.records if record.getMessage() == "refused"]  # type: ignore[attr-defined]
    assert [(fields["id"], fields["status"]) for fields in refused] == [("mine-1", 400), (made, 400)]
