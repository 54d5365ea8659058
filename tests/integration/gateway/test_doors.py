"""Keys, the system prompt, CORS, headers, metrics and the documentation page."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.sampling_triton import SamplingTriton, pieces
from tests.fakes.triton_server import hang, say
from tests.integration.gateway.harness import Gateway, error_of, running_gateway
from tests.integration.gateway.openai.conftest import client_of


@pytest.fixture
async def triton() -> AsyncIterator[SamplingTriton]:
    triton = SamplingTriton()
    await triton.start()
    try:
        yield triton
    finally:
        await triton.stop()


async def metrics_of(gateway: Gateway) -> dict[tuple[str, ...], float]:
    """Every sample: its name, then its labels' values in the order of their names."""
    text = (await gateway.client.get("/metrics")).text
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nonsense"])
async def test_the_api_key_guards_openais_paths(triton: SamplingTriton, path: str) -> None:
    async with running_gateway(triton, API_KEY="hush", SERVED_MODEL_NAME="course") as gateway:
        for headers in (
            {},
            {"Authorization": "Bearer hus"},
            {"Authorization": "hush"},
            {"Authorization": "Basic hush"},
        ):
            answer = await gateway.client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert (await gateway.predict("a")).status_code == 200
        async with client_of(gateway, "wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.models.list()
        async with client_of(gateway, "hush") as client:
            assert (await client.models.list()).data[0].id == "course"


async def test_the_system_prompt_is_replaced_for_later_requests(
    triton: SamplingTriton, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_gateway(triton, ADMIN_TOKEN="sésame", SYSTEM_PROMPT="old") as gateway:
        assert (await gateway.client.get("/system_prompt")).json() == {"system_prompt": "old"}
        await gateway.predict("a")
        headers = [(b"Authorization", "Bearer sésame".encode())]
        for method, text in (("PUT", "new"), ("POST", "newer")):
            with caplog.at_level(logging.INFO, "gateway"):
                answer = await gateway.client.request(
                    method, "/system_prompt", json={"system_prompt": text}, headers=headers
                )
            assert (answer.status_code, answer.json()) == (200, {"system_prompt": text})
            await gateway.predict("a")
        assert [call.messages[0][0]["content"] for call in triton.calls] == ["old", "new", "newer"]
        assert (await metrics_of(gateway))["gateway_system_prompt_changes_total",] == 2
    assert caplog.text.count("the system prompt was replaced") == 2
    assert "newer" not in caplog.text


async def test_without_the_admin_token_nobody_writes(triton: SamplingTriton) -> None:
    body = {"system_prompt": "new"}
    async with running_gateway(triton) as gateway:
        answer = await gateway.client.put("/system_prompt", json=body, headers={"Authorization": "Bearer None"})
        assert (answer.status_code, error_of(answer)["type"]) == (403, "forbidden")
    async with running_gateway(triton, ADMIN_TOKEN="hush") as gateway:
        for headers in ({}, {"Authorization": "Bearer x"}):
            answer = await gateway.client.put("/system_prompt", json=body, headers=headers)
            assert (answer.status_code, error_of(answer)["type"]) == (401, "unauthorized")
        right = {"Authorization": "Bearer hush"}
        wrong: Any
        for wrong in ({}, {"system_prompt": 7}, []):
            answer = await gateway.client.put("/system_prompt", json=wrong, headers=right)
            assert (answer.status_code, error_of(answer)["type"]) == (422, "invalid_request")
        assert (await gateway.client.get("/system_prompt")).json() != body


async def test_cors_is_off_unless_sites_are_named(triton: SamplingTriton) -> None:
    origin = {"Origin": "https://course.example", "Access-Control-Request-Method": "POST"}
    async with running_gateway(triton) as gateway:
        assert "access-control-allow-origin" not in (await gateway.client.get("/info", headers=origin)).headers
        assert (await gateway.client.options("/predict", headers=origin)).status_code == 405
    async with running_gateway(triton, CORS_ALLOW_ORIGINS="https://course.example, https://b.example") as gateway:
        for answer in (
            await gateway.client.options("/v1/chat/completions", headers=origin),
            await gateway.client.post("/predict", json={"prompt": ""}, headers=origin),
        ):
            assert answer.headers["access-control-allow-origin"] == "https://course.example"
        other = await gateway.client.get("/info", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_every_answer_has_the_security_headers_and_no_banner(gateway: Gateway) -> None:
    for path in ("/", "/no/such/path", "/docs", "/openapi.json"):
        headers = (await gateway.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert len(headers.get_list("content-security-policy")) == 1
        assert "server" not in headers


async def test_metrics_tell_what_happened(triton: SamplingTriton) -> None:
    triton.script.append(say("甲", "乙"))
    async with running_gateway(triton, SERVED_MODEL_NAME="course") as gateway:
        await gateway.predict(["a", " ", "b"])
        await gateway.predict("")
        await gateway.client.get("/no/such/path/1")
        await gateway.client.get("/no/such/path/2")
        triton.plays.append(pieces("甲乙"))
        async with client_of(gateway) as client:
            asked = await client.completions.create(model="course", prompt="abc", stream=True)
            assert [chunk.choices[0].text async for chunk in asked] == ["甲乙", ""]
        found = await metrics_of(gateway)
        assert found["gateway_requests_total", "POST", "/predict", "200"] == 1
        assert found["gateway_requests_total", "POST", "/predict", "400"] == 1
        assert found["gateway_requests_total", "other", "other", "404"] == 2
        assert found["gateway_request_seconds_count", "/predict"] == 2
        assert found["gateway_first_piece_seconds_count", "/v1/completions"] == 1
        assert found["gateway_prompts_total",] == 5
        assert found["gateway_failed_prompts_total",] == 2
        assert found["gateway_prompt_tokens_total",] == 9
        assert found["gateway_completion_tokens_total",] == 6
        assert found["gateway_ready_wait_seconds_count",] == 2
        assert found["gateway_prompts_in_flight",] == 0
        assert found["gateway_upstream_up", triton.url] == 1
        await triton.stop()
        assert (await gateway.client.post("/predict", json={"prompt": ""})).status_code == 400
        while (await metrics_of(gateway))["gateway_upstream_up", triton.url]:
            await gateway.is_ready()


async def test_refused_prompts_are_not_counted_and_a_failed_request_fails_all_of_its_prompts(
    triton: SamplingTriton,
) -> None:
    triton.probe = hang()
    async with running_gateway(triton, MAX_BATCH_PROMPTS="3", READY_TIMEOUT_S="0.1", wait=False) as gateway:
        statuses = [(await gateway.predict(["a"] * count)).status_code for count in (4, 3, 2)]
        assert statuses == [413, 503, 503]
        found = await metrics_of(gateway)
        assert found["gateway_prompts_total",] == 5
        assert found["gateway_failed_prompts_total",] == 5


async def test_an_address_with_a_slash_too_many_is_not_found(gateway: Gateway) -> None:
    answer = await gateway.client.post("/predict/", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")


async def test_the_documentation_needs_no_network(gateway: Gateway) -> None:
    answer = await gateway.client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<script" not in answer.text
    assert not re.search(r"(?:src|href)=\"(?!openapi\.json)", answer.text)
    document = (await gateway.client.get("/openapi.json")).json()
    for path in document["paths"]:
        assert f"<code>{path}</code>" in answer.text
    for shown in ("max_new_tokens", "top_logprobs", "什么是数据并行性？"):
        assert shown in answer.text
