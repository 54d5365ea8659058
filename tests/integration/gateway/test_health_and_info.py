"""Health, ``/info`` and the OpenAPI document."""

from __future__ import annotations

import json

import grpc  # type: ignore[import-untyped]
import pytest

from tests.fakes.triton_server import FakeTriton, refuse
from tests.integration.gateway.harness import Gateway, running_gateway
from tests.unit.gateway.waiting import until_async

ENGINE = {"name": "vllm-0", "state": "ready", "running": 0, "waiting": 0, "seconds_since_step": 0.1}


async def test_ready(gateway: Gateway) -> None:
    for path, word in (("/", "ok"), ("/health/ready", "ready"), ("/health/live", "live")):
        answer = await gateway.client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": word})


async def test_batch_mode_tells_the_evaluator_so(triton: FakeTriton) -> None:
    async with running_gateway(triton, BATCH_MODE="1") as gateway:
        assert (await gateway.client.get("/")).json() == {"status": "batch"}
        assert (await gateway.client.get("/health/ready")).json() == {"status": "ready"}


async def test_warming(triton: FakeTriton) -> None:
    triton.probe = refuse(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: starting")
    async with running_gateway(triton, wait=False, BATCH_MODE="1") as gateway:
        for path in ("/", "/health/ready"):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.json()) == (503, {"status": "warming"})
            assert int(answer.headers["retry-after"]) > 0
        assert (await gateway.client.get("/health/live")).status_code == 200


async def test_no_server_banner(gateway: Gateway) -> None:
    assert "server" not in (await gateway.client.get("/")).headers


async def test_info_shows_model_and_settings(triton: FakeTriton) -> None:
    triton.info = {"model": "course-qa", "backend": "vllm", "engines": [ENGINE], "settings": {"dtype": "auto"}}
    triton.info["secret"] = "hush"
    async with running_gateway(
        triton, API_KEY="hush-1", ADMIN_TOKEN="hush-2", SYSTEM_PROMPT="hush-3", MAX_QUEUE="77"
    ) as gateway:
        answer = await gateway.client.get("/info")
    info = answer.json()
    assert (info["status"], info["model"], info["backend"]) == ("ready", "course-qa", "vllm")
    assert info["engines"] == [ENGINE]
    assert info["settings"] == {"dtype": "auto"}
    assert info["gateway"]["settings"]["limits"]["max_queue"] == 77
    assert info["gateway"]["versions"]["fastapi"]
    assert "hush" not in answer.text


async def test_info_while_no_model_answers(triton: FakeTriton) -> None:
    triton.info = {"model": "course-qa", "backend": "vllm", "engines": [ENGINE]}
    async with running_gateway(triton, SERVED_MODEL_NAME="course") as gateway:
        await triton.stop()
        info = (await gateway.client.get("/info")).json()
        assert (info["model"], info["backend"], info["engines"]) == ("course", None, None)

        async def engine_is_shown() -> bool:
            return bool((await gateway.client.get("/info")).json()["engines"] == [ENGINE])

        await triton.start()
        await until_async(engine_is_shown)
        await triton.stop()
        info = (await gateway.client.get("/info")).json()
        assert (info["model"], info["backend"], info["engines"]) == ("course-qa", "vllm", [])


async def test_openapi_describes_predict_with_examples(gateway: Gateway) -> None:
    document = (await gateway.client.get("/openapi.json")).json()
    operation = document["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"]["properties"].keys() == {
        "prompt",
        "max_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
        "frequency_penalty",
        "ignore_eos",
        "system_prompt",
    }
    assert {"200", "400", "413", "422", "429", "502", "503", "504"} <= operation["responses"].keys()
    assert document["paths"].keys() == {
        *("/", "/health/live", "/health/ready", "/predict", "/info", "/metrics", "/docs", "/system_prompt"),
        *("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{name}"),
    }
    for example in content["examples"].values():
        answer = await gateway.client.post("/predict", json=example["value"])
        assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/openapi.json"])
async def test_every_reference_of_the_document_leads_somewhere(gateway: Gateway, path: str) -> None:
    text = (await gateway.client.get(path)).text
    document = json.loads(text)
    names = set(document["components"]["schemas"])
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references
    assert references <= names
    assert "#/$defs/" not in text
