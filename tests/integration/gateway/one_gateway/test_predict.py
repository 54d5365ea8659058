"""``POST /predict``: one question, many questions, options, and what the model is sent for them."""

from __future__ import annotations

import logging

import pytest

from gateway.settings import DEFAULT_SYSTEM_PROMPT
from tests.fakes.triton_server import FakeTriton, Row, respond, say
from tests.integration.gateway.harness import Gateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_one_question_one_answer(gateway: Gateway, triton: FakeTriton) -> None:
    answer = await gateway.predict("什么是线程？")
    assert (answer.status_code, answer.json()) == (200, {"response": "什么是线程？"})
    assert answer.headers["content-type"] == "application/json"
    (call,) = triton.calls
    assert call.messages == [
        [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, {"role": "user", "content": "什么是线程？"}]
    ]
    assert not call.partial


async def test_a_list_is_answered_by_one_request_in_order(gateway: Gateway, triton: FakeTriton) -> None:
    questions = [f"问题 {number}" for number in range(1000)]
    assert (await gateway.predict(questions)).json() == {"response": questions}
    (call,) = triton.calls
    assert call.partial
    assert call.questions == questions


async def test_a_list_of_one_is_answered_by_a_list(gateway: Gateway) -> None:
    assert (await gateway.predict(["一"])).json() == {"response": ["一"]}


async def test_an_empty_list_is_answered_without_the_model(gateway: Gateway, triton: FakeTriton) -> None:
    assert (await gateway.predict([])).json() == {"response": []}
    assert not triton.calls


async def test_ten_thousand_questions(gateway: Gateway, triton: FakeTriton) -> None:
    questions = [f"q{number}" for number in range(10_000)]
    assert (await gateway.predict(questions)).json() == {"response": questions}
    assert [len(call.questions) for call in triton.calls] == [1024] * 9 + [784]


async def test_rows_that_come_in_groups_and_out_of_order_are_put_in_order(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(2, "c")], [Row(3, "d"), Row(0, "a")], [Row(1, "b")]))
    assert (await gateway.predict(list("wxyz"))).json() == {"response": ["a", "b", "c", "d"]}


async def test_batch_mode_changes_no_answer(triton: FakeTriton) -> None:
    async with running_gateway(triton, BATCH_MODE="1") as gateway:
        assert (await gateway.predict("一")).json() == {"response": "一"}
        assert (await gateway.predict(["一", "二"])).json() == {"response": ["一", "二"]}


async def test_every_question_has_the_budget_of_its_kind(gateway: Gateway, triton: FakeTriton) -> None:
    await gateway.predict(["什么是线程？", "给出代码", "算子", "#include"])
    (call,) = triton.calls
    assert [parameters["max_tokens"] for parameters in call.sampling_parameters] == [64, 96, 192, 192]


async def test_options_reach_the_model(gateway: Gateway, triton: FakeTriton) -> None:
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.2,
        "frequency_penalty": -0.5,
    }
    answer = await gateway.predict(["一", "代码"], max_new_tokens=7, ignore_eos=True, system_prompt="你好", **options)
    assert answer.status_code == 200
    (call,) = triton.calls
    assert call.sampling_parameters == [{"max_tokens": 7, "ignore_eos": True, **options}]
    assert call.messages[1][0] == {"role": "system", "content": "你好"}


async def test_nulls_and_unknown_fields_are_ignored(gateway: Gateway, triton: FakeTriton) -> None:
    answer = await gateway.predict(
        "一", max_new_tokens=None, temperature=None, ignore_eos=None, system_prompt=None, id=7, extra={"a": [1]}
    )
    assert answer.json() == {"response": "一"}
    assert triton.calls[0].sampling_parameters[0]["max_tokens"] == 64


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_any_content_type_will_do(gateway: Gateway, content_type: str) -> None:
    answer = await gateway.client.post(
        "/predict", content='{"prompt": "一"}'.encode(), headers={"Content-Type": content_type}
    )
    assert answer.json() == {"response": "一"}


async def test_answers_are_finished_by_the_policy(gateway: Gateway, triton: FakeTriton) -> None:
    text = "<think>嗯</think>一。二。三。四。五。六。七。"
    triton.script.append(say(text, "甲。例如：乙", text))
    answer = await gateway.predict(["什么是线程？", "什么是块？", "算子"])
    assert answer.json() == {"response": ["一。二。三。四。五。六。", "甲。", "一。二。三。四。五。六。七。"]}


async def test_an_empty_answer_is_an_answer(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(say("", "x"))
    assert (await gateway.predict(["一", "二"])).json() == {"response": ["", "x"]}


@pytest.mark.parametrize(
    "question", ["😀 emoji 👩‍👩‍👧", "a\0b", "\u2028\u2029", '"\\/\b\f', "\ufeffbom", "\U0010ffff", "e\u0301"]
)
async def test_odd_characters_make_an_exact_round_trip(gateway: Gateway, triton: FakeTriton, question: str) -> None:
    assert (await gateway.predict(f"«{question}»")).json() == {"response": f"«{question}»"}
    assert triton.calls[0].questions == [f"«{question}»"]


async def test_bytes_of_the_model_that_are_no_text_do_no_harm(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(say(b"a\xff\xf0"))
    assert (await gateway.predict("一")).json()["response"].startswith("a\ufffd")


@pytest.mark.parametrize("request_id", ["a", "A.b_c-9", "x" * 128])
async def test_a_sane_request_id_is_kept_and_goes_to_the_model(
    gateway: Gateway, triton: FakeTriton, request_id: str
) -> None:
    answer = await gateway.client.post("/predict", json={"prompt": "一"}, headers={"X-Request-Id": request_id})
    assert answer.headers["x-request-id"] == request_id
    assert triton.calls[0].id == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a\tb", "<script>", 'a"', "é"])
async def test_any_other_request_id_is_replaced(gateway: Gateway, triton: FakeTriton, request_id: str) -> None:
    answer = await gateway.client.post(
        "/predict", json={"prompt": "一"}, headers=[(b"X-Request-Id", request_id.encode())]
    )
    made = answer.headers["x-request-id"]
    assert len(made) == 32
    assert triton.calls[0].id == made


async def test_the_model_knows_the_deadline(triton: FakeTriton) -> None:
    async with running_gateway(triton, REQUEST_TIMEOUT_S="25") as gateway:
        await gateway.predict("一")
    assert "triton_grpc_error" not in triton.calls[0].metadata  # Triton 2.51 crashes when such a stream is cancelled
    assert 20 < triton.calls[0].time_remaining_s < 26  # gRPC rounds it


async def test_one_log_line_a_request_without_its_text(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway"):
        body = {"prompt": ["机密问题", " "], "system_prompt": "机密提示"}
        await gateway.client.post("/predict", json=body, headers={"X-Request-Id": "id-7"})
        await gateway.client.get("/no/such/route")
        await gateway.client.get("/")
    records = [record for record in caplog.records if record.name == "gateway.request"]
    first, second = [record.__dict__["fields"] for record in records]
    assert first.pop("ms") >= 0
    assert first == {
        "id": "id-7",
        "route": "POST /predict",
        "status": 200,
        "bytes_in": first["bytes_in"],
        "bytes_out": first["bytes_out"],
        "prompts": 2,
        "failed_prompts": 1,
        "prompt_tokens": 3,
        "completion_tokens": 2,
    }
    assert first["bytes_in"] > 30
    assert first["bytes_out"] > 30
    assert (second["route"], second["status"]) == ("GET /no/such/route", 404)
    assert "机密" not in caplog.text
