"""What the model says about a request or a row: the documented status, and none of Triton's own words."""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]
import pytest

from tests.fakes.triton_server import FakeTriton, Refuse, Row, refuse, respond
from tests.integration.gateway.harness import Gateway, error_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOO_LONG = "the prompt has 900 tokens; allowed are 1 to 511"


async def test_a_prompt_over_the_length_is_400_with_both_numbers(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(refuse(grpc.StatusCode.INVALID_ARGUMENT, f"INVALID_ARG: {TOO_LONG}"))
    answer = await gateway.predict("a")
    assert answer.status_code == 400
    assert (error_of(answer)["type"], error_of(answer)["message"]) == ("invalid_value", TOO_LONG)


async def test_in_a_list_only_that_prompt_fails(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(0, "a"), Row(1, error=("INVALID_ARG", TOO_LONG)), Row(2, "c")]))
    answer = await gateway.predict(["a", "b", " ", "c"])
    assert (answer.status_code, answer.json()["response"]) == (200, ["a", "", "", "c"])
    assert answer.json()["errors"] == [
        {"index": 1, "type": "invalid_value", "message": TOO_LONG},
        {"index": 2, "type": "invalid_value", "message": "the prompt is empty"},
    ]


async def test_all_prompts_bad_by_the_callers_fault_is_400(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(0, error=("INVALID_ARG", TOO_LONG)), Row(1, error=("INVALID_ARG", TOO_LONG))]))
    answer = await gateway.predict(["a", " ", "b"])
    assert answer.status_code == 400
    assert error_of(answer)["message"].startswith("none of the 3 prompts was answered")


async def test_all_prompts_bad_by_the_models_fault_is_502(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(0, error=("INVALID_ARG", TOO_LONG)), Row(1, error=("INTERNAL", "it broke"))]))
    answer = await gateway.predict(["a", "b"])
    assert answer.status_code == 502
    assert "it broke" in error_of(answer)["message"]


async def test_a_failure_of_the_model_is_502(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(refuse(grpc.StatusCode.INTERNAL, "INTERNAL: the model failed on this request"))
    answer = await gateway.predict("a")
    assert (answer.status_code, error_of(answer)["type"]) == (502, "model_failed")


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
async def test_tritons_own_words_never_reach_a_client(
    gateway: Gateway, triton: FakeTriton, prompt: str | list[str]
) -> None:
    secret = refuse(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape in /opt/triton/secret.cc")
    triton.script.extend([secret] * 3)
    answer = await gateway.predict(prompt)
    assert answer.status_code == 502
    assert "secret" not in answer.text
    assert "shape" not in answer.text
    assert not triton.script  # it may have been the stub's death: tried again, but not for ever


async def test_finished_rows_survive_an_error_of_the_request(gateway: Gateway, triton: FakeTriton) -> None:
    failure = Refuse(grpc.StatusCode.INTERNAL, "INTERNAL: it broke")
    triton.script.append(respond([Row(1, "b")], then=failure))
    answer = await gateway.predict(["a", "b", "c"])
    assert (answer.status_code, answer.json()["response"]) == (200, ["", "b", ""])
    assert [(error["index"], error["type"]) for error in answer.json()["errors"]] == [
        (0, "model_failed"),
        (2, "model_failed"),
    ]
    assert len(triton.calls) == 1


async def test_an_answer_that_breaks_the_contract_is_502(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(7, "no such row")]))
    assert (await gateway.predict(["a", "b"])).status_code == 502
    assert (await gateway.predict("a")).json() == {"response": "a"}
