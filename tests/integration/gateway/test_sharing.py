"""Single prompts that come at the same moment share a request to Triton, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial

import grpc  # type: ignore[import-untyped]
import pytest

from gateway.triton import sharing
from tests.fakes.otlp_collector import http_collector
from tests.fakes.triton_server import Call, FakeTriton, Row, echo, hang, refuse, respond
from tests.integration.gateway.harness import Gateway, error_of, running_gateway
from tests.integration.gateway.test_faults import GONE
from tests.unit.gateway.waiting import until, until_async


@pytest.fixture(autouse=True)
def _wait_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that a busy machine takes in one after the other shall meet all the same."""
    monkeypatch.setattr(sharing, "_BUSY", 0)
    monkeypatch.setattr(sharing, "_GATHER_S", 0.3)


async def _ask(gateway: Gateway, *prompts: str) -> list[str]:
    answers = await asyncio.gather(*(gateway.predict(prompt) for prompt in prompts))
    return [answer.json()["response"] for answer in answers]


async def test_each_gets_the_answer_to_its_own_question_with_its_own_options(
    gateway: Gateway, triton: FakeTriton
) -> None:
    answers = await asyncio.gather(
        gateway.predict("a", temperature=0.5), gateway.predict("b"), gateway.predict("c", system_prompt="be brief")
    )
    assert [answer.json() for answer in answers] == [{"response": text} for text in "abc"]
    (call,) = triton.calls
    asked = {question: row for row, question in enumerate(call.questions)}
    assert asked.keys() == set("abc")
    assert call.parameters_of(asked["a"])["temperature"] == 0.5
    assert call.parameters_of(asked["b"])["temperature"] == 0.0
    assert call.messages[asked["c"]][0] == {"role": "system", "content": "be brief"}
    assert call.partial
    assert len(call.row_key) == 32
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert set(call.id.split(",")) == ids


async def test_a_prompt_without_company_is_a_plain_request(gateway: Gateway, triton: FakeTriton) -> None:
    answer = await gateway.predict("a")
    (call,) = triton.calls
    assert (call.id, call.row_key, call.partial) == (answer.headers["x-request-id"], "", False)


async def test_a_row_is_answered_when_it_is_finished(gateway: Gateway, triton: FakeTriton) -> None:
    gate = asyncio.Event()

    async def one_by_one(call: Call) -> AsyncIterator[list[Row]]:
        rows = {question: Row(row, question) for row, question in enumerate(call.questions)}
        yield [rows["b"]]
        await gate.wait()
        yield [rows["a"]]

    triton.script.append(one_by_one)
    slow = asyncio.create_task(gateway.predict("a"))
    assert (await gateway.predict("b")).json() == {"response": "b"}
    assert not slow.done()
    gate.set()
    assert (await slow).json() == {"response": "a"}
    assert len(triton.calls) == 1


async def test_a_client_that_goes_away_ends_its_own_row_only(gateway: Gateway, triton: FakeTriton) -> None:
    gate = asyncio.Event()

    async def wait(call: Call) -> AsyncIterator[list[Row]]:
        await gate.wait()
        yield [Row(row, question) for row, question in enumerate(call.questions)]

    triton.script.append(wait)
    staying = asyncio.create_task(gateway.predict("stays"))
    writer = await _send(gateway, "leaves")
    await triton.wait_for_rows(2)
    (call,) = triton.calls
    writer.close()
    await until(lambda: bool(call.cancelled_rows), 2)
    assert call.cancelled_rows == [call.questions.index("leaves")]
    gate.set()
    assert (await staying).json() == {"response": "stays"}
    assert not call.was_cancelled
    assert await gateway.prompts_in_flight() == 0


async def test_when_all_have_gone_away_the_request_is_cancelled(gateway: Gateway, triton: FakeTriton) -> None:
    triton.default = hang()
    writers = [await _send(gateway, "a"), await _send(gateway, "b")]
    await triton.wait_for_rows(2)
    for writer in writers:
        writer.close()
    await asyncio.wait_for(triton.calls[0].ended.wait(), 2)
    assert triton.calls[0].was_cancelled
    assert len(triton.calls) == 1


async def test_a_client_that_goes_away_before_the_request_is_sent_is_forgotten(
    gateway: Gateway, triton: FakeTriton
) -> None:
    async def in_hand(count: int) -> bool:
        return await gateway.prompts_in_flight() == count

    writer = await _send(gateway, "leaves")
    await until_async(partial(in_hand, 1))
    writer.close()
    await until_async(partial(in_hand, 0))
    assert await _ask(gateway, "b") == ["b"]
    assert triton.calls[-1].questions[-1] == "b"


async def _send(gateway: Gateway, prompt: str) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    body = json.dumps({"prompt": prompt}).encode()
    writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return writer


async def test_a_rows_error_is_its_callers(gateway: Gateway, triton: FakeTriton) -> None:
    async def refuse_the_long_one(call: Call) -> AsyncIterator[list[Row]]:
        for row, question in enumerate(call.questions):
            error = ("INVALID_ARG", "the prompt has 9 tokens") if question == "long" else None
            yield [Row(row, question, error=error)]

    triton.script.append(refuse_the_long_one)
    good, bad = await asyncio.gather(gateway.predict("good"), gateway.predict("long"))
    assert good.json() == {"response": "good"}
    assert (bad.status_code, error_of(bad)["message"]) == (400, "the prompt has 9 tokens")
    assert len(triton.calls) == 1


async def test_a_row_that_was_lost_is_sent_again_alone(gateway: Gateway, triton: FakeTriton) -> None:
    async def lose_one(call: Call) -> AsyncIterator[list[Row]]:
        for row, question in enumerate(call.questions):
            yield [Row(row, question, error=("UNAVAILABLE", "no engine is alive") if question == "a" else None)]

    triton.script.append(lose_one)
    assert await _ask(gateway, "a", "b") == ["a", "b"]
    assert [call.questions for call in triton.calls[1:]] == [["a"]]


async def test_a_request_that_is_refused_as_a_whole_costs_only_the_guilty(gateway: Gateway, triton: FakeTriton) -> None:
    async def refuse_the_bad_one(call: Call) -> AsyncIterator[list[Row]]:
        if "bad" in call.questions:
            async for rows in refuse(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARG: 'stop' is not allowed")(call):
                yield rows
        async for rows in echo(call):
            yield rows

    triton.default = refuse_the_bad_one
    good, bad = await asyncio.gather(gateway.predict("good"), gateway.predict("bad"))
    assert good.json() == {"response": "good"}
    assert (bad.status_code, error_of(bad)["message"]) == (400, "'stop' is not allowed")


async def test_prompts_in_one_request_survive_the_death_of_triton(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(hang())
    answers = asyncio.create_task(_ask(gateway, "a", "b", "c"))
    await triton.wait_for_rows(3)
    await triton.stop()
    await triton.start()
    assert await answers == ["a", "b", "c"]
    assert sorted(tuple(call.questions) for call in triton.calls[1:]) == [("a",), ("b",), ("c",)]


async def test_a_poisonous_prompt_takes_no_other_with_it(gateway: Gateway, triton: FakeTriton) -> None:
    async def die_of_poison(call: Call) -> AsyncIterator[list[Row]]:
        if "poison" in call.questions:
            raise GONE
        async for rows in echo(call):
            yield rows

    triton.default = die_of_poison
    good, bad = await asyncio.gather(gateway.predict("good"), gateway.predict("poison"))
    assert good.json() == {"response": "good"}
    assert (bad.status_code, error_of(bad)["type"]) == (502, "model_failed")


async def test_rows_left_out_are_sent_again(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([]))
    assert await _ask(gateway, "a", "b") == ["a", "b"]


async def test_a_request_has_a_limited_number_of_rows(
    gateway: Gateway, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_ROWS", 2)
    assert await _ask(gateway, *"abcde") == list("abcde")
    assert max(len(call.questions) for call in triton.calls) == 2


async def test_with_traces_each_prompt_has_a_request_of_its_own(triton: FakeTriton) -> None:
    async with (
        http_collector() as collected,
        running_gateway(triton, OTEL_EXPORTER_OTLP_ENDPOINT=collected.endpoint) as gateway,
    ):
        assert await _ask(gateway, "a", "b") == ["a", "b"]
    assert len(triton.calls) == 2
