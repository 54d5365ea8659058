"""Whatever is sent: the documented 4xx or an exact round trip, and never a 500."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.triton_server import FakeTriton
from tests.integration.gateway.harness import Gateway, error_of, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{]",
        b"nonsense",
        b'{"prompt": "a"} x',
        b'{"prompt": NaN}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b"[" * 10_000,
        b'{"prompt":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"prompt": "a", "x":' + b'{"x":' * 10_000 + b"1" + b"}" * 10_001,
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\xc0\xaf"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00\\ud800"}',
        b'{"prompt": "a\0b"}',
        b'{"prompt": "a\nb"}',
        b'{"prompt": "\\u00"}',
        b"\xef\xbb\xbf\xff",
        b"\0" * 100,
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_what_is_no_json_is_422(gateway: Gateway, triton: FakeTriton, body: bytes) -> None:
    answer = await gateway.post(body)
    assert answer.status_code == 422
    assert error_of(answer)["type"] == "invalid_request"
    assert not triton.calls


@pytest.mark.parametrize(
    "body,place",
    [
        ([], "object"),
        (None, "object"),
        ("text", "object"),
        (7, "object"),
        ({}, "prompt"),
        ({"Prompt": "a"}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": True}, "prompt"),
        ({"prompt": {"a": "b"}}, "prompt"),
        ({"prompt": ["a", 7]}, "prompt[1]"),
        ({"prompt": ["a", None, "b"]}, "prompt[1]"),
        ({"prompt": [["a"]]}, "prompt[0]"),
        ({"prompt": "a", "max_new_tokens": "many"}, "max_new_tokens"),
        ({"prompt": "a", "max_new_tokens": 1.5}, "max_new_tokens"),
        ({"prompt": "a", "max_new_tokens": [1]}, "max_new_tokens"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "top_p": {}}, "top_p"),
        ({"prompt": "a", "top_k": []}, "top_k"),
        ({"prompt": "a", "ignore_eos": "perhaps"}, "ignore_eos"),
        ({"prompt": "a", "system_prompt": 7}, "system_prompt"),
    ],
)
async def test_a_wrong_shape_is_422_naming_the_place(
    gateway: Gateway, triton: FakeTriton, body: Any, place: str
) -> None:
    answer = await gateway.post(json.dumps(body).encode())
    assert answer.status_code == 422
    assert place in error_of(answer)["message"]
    assert not triton.calls


@pytest.mark.parametrize(
    "field,value,allowed",
    [
        ("max_new_tokens", 0, "1 to"),
        ("max_new_tokens", -1, "1 to"),
        ("max_new_tokens", 2**31, "1 to"),
        ("temperature", -1, "0.0 to 2.0"),
        ("temperature", 1e300, "0.0 to 2.0"),
        ("top_p", 0, "more than 0.0 up to 1.0"),
        ("top_p", 1.01, "more than 0.0 up to 1.0"),
        ("top_k", -2, "-1 to"),
        ("repetition_penalty", 0, "more than 0.0 up to 2.0"),
        ("frequency_penalty", 3, "-2.0 to 2.0"),
    ],
)
@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
async def test_a_bad_value_is_400_naming_field_value_and_allowed(
    gateway: Gateway, triton: FakeTriton, prompt: Any, field: str, value: float, allowed: str
) -> None:
    answer = await gateway.predict(prompt, **{field: value})
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["type"] == "invalid_value"
    assert error["message"].startswith(f"{field} has value ")
    assert allowed in error["message"]
    assert not triton.calls


@pytest.mark.parametrize("prompt", ["", " ", "\t\n", "\u3000\u2003", [""], [" ", "\n"]])
async def test_nothing_but_blank_prompts_is_400(gateway: Gateway, triton: FakeTriton, prompt: Any) -> None:
    answer = await gateway.predict(prompt)
    assert answer.status_code == 400
    assert "the prompt is empty" in error_of(answer)["message"]
    assert not triton.calls


async def test_a_blank_prompt_in_a_list_costs_only_itself(gateway: Gateway, triton: FakeTriton) -> None:
    answer = await gateway.predict(["a", "", "b", " \n"])
    assert (answer.status_code, answer.json()["response"]) == (200, ["a", "", "b", ""])
    assert answer.json()["errors"] == [
        {"index": 1, "type": "invalid_value", "message": "the prompt is empty"},
        {"index": 3, "type": "invalid_value", "message": "the prompt is empty"},
    ]
    assert triton.calls[0].questions == ["a", "b"]


async def test_more_prompts_than_allowed_are_413(triton: FakeTriton) -> None:
    async with running_gateway(triton, MAX_BATCH_PROMPTS="3") as gateway:
        assert (await gateway.predict(["a"] * 3)).status_code == 200
        answer = await gateway.predict(["a"] * 4)
        assert answer.status_code == 413
        assert error_of(answer)["message"] == "the request has 4 prompts; at most 3 are allowed"


def _body_of(size: int) -> bytes:
    empty = b'{"prompt": ""}'
    return b'{"prompt": "' + b"a" * (size - len(empty)) + b'"}'


async def test_a_body_over_the_limit_is_413_announced_or_chunked(triton: FakeTriton) -> None:
    async with running_gateway(triton, MAX_BODY_BYTES="300000") as gateway:

        async def chunks(body: bytes) -> Any:
            for start in range(0, len(body), 1000):
                yield body[start : start + 1000]

        at, over = _body_of(300_000), _body_of(300_001)
        assert (await gateway.post(at)).status_code == 200
        assert (await gateway.client.post("/predict", content=chunks(at))).status_code == 200
        for answer in (await gateway.post(over), await gateway.client.post("/predict", content=chunks(over))):
            assert answer.status_code == 413
            assert error_of(answer)["message"] == "the body is larger than 300000 bytes"
        assert (await gateway.predict("a")).status_code == 200  # the connections are still of use


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


@pytest.mark.parametrize(
    "method,path,status,kind",
    [
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("GET", "/redoc", 404, "not_found"),
    ],
)
async def test_unknown_routes_and_methods_have_the_same_form(
    gateway: Gateway, method: str, path: str, status: int, kind: str
) -> None:
    answer = await gateway.client.request(method, path)
    assert (answer.status_code, error_of(answer)["type"]) == (status, kind)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_REQUESTS = st.fixed_dictionaries(
    {"prompt": _JSON | st.text() | st.lists(st.text(), max_size=4)},
    optional={
        name: _JSON
        for name in (
            "max_new_tokens",
            "temperature",
            "top_p",
            "top_k",
            "frequency_penalty",
            "ignore_eos",
            "system_prompt",
        )
    },
)


async def test_any_json_and_any_bytes_are_answered_without_a_500(gateway: Gateway) -> None:
    bodies: list[bytes] = []

    @settings(max_examples=80, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200) | _JSON.map(_dump) | _REQUESTS.map(_dump))
    def collect(body: bytes) -> None:
        bodies.append(body)

    collect()
    for body in bodies:
        answer = await gateway.post(body)
        assert answer.status_code in (200, 400, 413, 422), (body, answer.text)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()
