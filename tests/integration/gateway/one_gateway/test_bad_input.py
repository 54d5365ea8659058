"""Whatever is sent: the documented 4xx or an exact round trip, and never a 500."""

from __future__ import annotations

import json
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
