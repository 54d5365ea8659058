"""Triton or its model goes away: what is finished is kept, what is missing is sent again, the deadline holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc  # type: ignore[import-untyped]
import pytest

from gateway.readiness import ProbeTimes
from tests.fakes.triton_server import Call, FakeTriton, Refuse, Row, echo, hang, refuse, respond, wait_for
from tests.integration.gateway.harness import Gateway, error_of, running_gateway, running_triton
from tests.unit.gateway.waiting import until, until_async

GONE = Refuse(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: no engine is alive")


async def test_only_missing_rows_are_sent_again(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(3, "d"), Row(1, "b")], then=GONE))
    answer = await gateway.predict(["a", "b", "c", "d", "代码"])
    assert answer.json() == {"response": ["a", "b", "c", "d", "代码"]}
    first, second = triton.calls
    assert first.questions == ["a", "b", "c", "d", "代码"]
    assert second.questions == ["a", "c", "代码"]
    assert [second.parameters_of(row)["max_tokens"] for row in range(3)] == [64, 64, 96]


@pytest.mark.parametrize(
    "fault",
    [
        GONE,
        Refuse(grpc.StatusCode.CANCELLED, "CANCELLED: the request was cancelled"),
        Refuse(grpc.StatusCode.INTERNAL, "Stub process 'llm_0_0' is not healthy."),
        Refuse(grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'llm' has no available versions"),
        Refuse(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'llm' is not found"),
    ],
    ids=lambda fault: fault.details[:24],
)
async def test_a_single_prompt_is_sent_again(gateway: Gateway, triton: FakeTriton, fault: Refuse) -> None:
    triton.script.append(respond(then=fault))
    assert (await gateway.predict("a")).json() == {"response": "a"}
    assert len(triton.calls) == 2


async def test_rows_without_an_engine_are_sent_again(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(0, "a"), Row(1, error=("UNAVAILABLE", "no engine is alive"))]))
    assert (await gateway.predict(["a", "b"])).json() == {"response": ["a", "b"]}
    assert triton.calls[1].questions == ["b"]


async def test_rows_left_out_are_sent_again(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(respond([Row(0, "a")]))
    assert (await gateway.predict(["a", "b"])).json() == {"response": ["a", "b"]}
    assert triton.calls[1].questions == ["b"]


async def test_a_request_survives_the_death_of_triton(gateway: Gateway, triton: FakeTriton) -> None:
    triton.script.append(hang([Row(0, "a")]))
    single = hang()
    batch = asyncio.create_task(gateway.predict(["a", "b"]))
    await triton.wait_for_calls(1)
    triton.script.append(single)
    alone = asyncio.create_task(gateway.predict("c"))
    await triton.wait_for_calls(2)
    await triton.stop()

    async def is_recovering() -> bool:  # once the broken connection has been noticed
        health = await gateway.client.get("/")
        return (health.status_code, health.json()) == (503, {"status": "recovering"})

    await until_async(is_recovering)
    assert not batch.done()
    assert not alone.done()
    await triton.start()
    assert (await batch).json() == {"response": ["a", "b"]}
    assert (await alone).json() == {"response": "c"}
    assert {tuple(call.questions) for call in triton.calls[2:]} == {("b",), ("c",)}
    assert (await gateway.client.get("/")).status_code == 200


async def test_a_prompt_that_takes_the_model_down_is_given_up(gateway: Gateway, triton: FakeTriton) -> None:
    triton.default = respond(then=GONE)
    answer = await gateway.predict("poison")
    assert (answer.status_code, error_of(answer)["type"]) == (502, "model_failed")
    assert len(triton.calls) == 3


async def test_waiting_for_a_lost_model_ends_at_the_deadline(triton: FakeTriton) -> None:
    async with running_gateway(triton, REQUEST_TIMEOUT_S="1") as gateway:
        triton.script.append(respond([Row(1, "b")], then=GONE))
        triton.probe = refuse(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: no engine is alive")
        answer = await gateway.predict(["a", "b"])
        assert answer.json()["response"] == ["", "b"]
        assert answer.json()["errors"][0]["type"] == "deadline_exceeded"


async def test_the_deadline_of_a_single_prompt_is_504(triton: FakeTriton) -> None:
    async with running_gateway(triton, REQUEST_TIMEOUT_S="0.5") as gateway:
        triton.script.append(hang())
        started = time.monotonic()
        answer = await gateway.predict("a")
        assert (answer.status_code, error_of(answer)["type"]) == (504, "deadline_exceeded")
        assert 0.4 < time.monotonic() - started < 5
        await asyncio.wait_for(triton.calls[0].ended.wait(), 2)


async def test_a_deadline_in_mid_batch_returns_what_is_finished(triton: FakeTriton) -> None:
    async with running_gateway(triton, REQUEST_TIMEOUT_S="0.5") as gateway:
        triton.script.append(hang([Row(2, "c")], [Row(0, "a")]))
        answer = await gateway.predict(["a", "b", "c"])
        assert (answer.status_code, answer.json()["response"]) == (200, ["a", "", "c"])
        assert [error["index"] for error in answer.json()["errors"]] == [1]
        triton.script.append(hang())
        answer = await gateway.predict(["a", "b"])
        assert (answer.status_code, error_of(answer)["type"]) == (504, "deadline_exceeded")


async def test_while_the_model_warms_up_requests_wait(triton: FakeTriton) -> None:
    gate = asyncio.Event()
    triton.probe = wait_for(gate)
    triton.info["engines"] = [{"state": "starting"}]
    async with running_gateway(triton, wait=False) as gateway:
        answer = asyncio.create_task(gateway.predict("a"))
        await until(lambda: bool(triton.probes))
        health = await gateway.client.get("/")
        assert (health.status_code, health.json()) == (503, {"status": "warming"})
        assert not answer.done()
        assert not triton.calls
        gate.set()
        assert (await answer).json() == {"response": "a"}


async def test_a_model_that_is_not_ready_in_time_is_503(triton: FakeTriton) -> None:
    triton.probe = refuse(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: starting")
    async with running_gateway(triton, READY_TIMEOUT_S="0.2", wait=False) as gateway:
        answer = await gateway.predict("a")
        assert (answer.status_code, error_of(answer)["type"]) == (503, "not_ready")
        assert error_of(answer)["message"] == "the model is warming"
        assert int(answer.headers["retry-after"]) > 0
        assert await gateway.prompts_in_flight() == 0


async def test_several_tritons_share_a_batch_and_stand_in_for_each_other(triton: FakeTriton) -> None:
    async with running_triton() as other, running_gateway(triton, other) as gateway:
        await _all_probed(triton, other)
        questions = [f"q{number}" for number in range(11)]
        assert (await gateway.predict(questions)).json() == {"response": questions}
        assert [len(call.questions) for call in (*triton.calls, *other.calls)] == [6, 5]

        for fake in (triton, other):
            fake.calls.clear()
        triton.script.append(respond(then=GONE))
        other.script.append(respond(then=GONE))
        assert (await gateway.predict(questions)).json() == {"response": questions}

        await triton.stop()
        assert (await gateway.predict(questions)).json() == {"response": questions}
        assert (await gateway.client.get("/")).json() == {"status": "ok"}


async def test_the_less_busy_triton_takes_the_next_prompt(triton: FakeTriton) -> None:
    async with running_triton() as other, running_gateway(triton, other) as gateway:
        await _all_probed(triton, other)
        gate = asyncio.Event()
        triton.default = other.default = wait_for(gate)
        waiting = [asyncio.create_task(gateway.predict("a")) for _ in range(6)]
        await until(lambda: triton.rows + other.rows == 6)
        assert (triton.rows, other.rows) == (3, 3)
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def _all_probed(*tritons: FakeTriton) -> None:
    await until(lambda: all(triton.probes and triton.probes[0].ended.is_set() for triton in tritons))


async def test_a_probe_behind_a_long_queue_leaves_the_service_ready(triton: FakeTriton) -> None:
    times = ProbeTimes(interval_s=0.1, patience_s=0.1, busy_stall_s=60.0)
    working = asyncio.Event()
    triton.info["engines"] = [{"state": "ready", "running": 8, "waiting": 90, "seconds_since_step": 0.01}]
    triton.default = wait_for(working)
    async with running_gateway(triton, probe_times=times) as gateway:
        triton.probe = hang()
        answer = asyncio.create_task(gateway.predict("a"))
        await until(lambda: triton.info_requests > 3)  # the probe was out of patience that often
        assert (await gateway.client.get("/")).status_code == 200
        working.set()
        assert (await answer).json() == {"response": "a"}


async def test_a_real_answer_makes_a_waiting_probe_needless(triton: FakeTriton) -> None:
    times = ProbeTimes(interval_s=0.1, patience_s=0.1, busy_stall_s=60.0)
    triton.info["engines"] = [{"state": "ready", "running": 8, "waiting": 90, "seconds_since_step": 0.01}]
    async with running_gateway(triton, probe_times=times) as gateway:
        triton.probe = hang()
        probes = len(triton.probes)
        await until(lambda: len(triton.probes) > probes)
        assert (await gateway.predict("a")).status_code == 200
        await asyncio.wait_for(triton.probes[probes].ended.wait(), 10)
        assert triton.probes[probes].was_cancelled


async def test_a_model_that_hangs_is_noticed(gateway: Gateway, triton: FakeTriton) -> None:
    triton.probe = hang()
    triton.answers_info = False

    async def not_ready() -> bool:
        return not await gateway.is_ready()

    await until_async(not_ready)
    assert (await gateway.client.get("/")).json() == {"status": "recovering"}
    assert (await gateway.client.get("/health/live")).status_code == 200


async def _health(gateway: Gateway) -> tuple[tuple[int, str], tuple[int, str]]:
    """What ``GET /`` and ``GET /health/ready`` say."""
    found = [await gateway.client.get(path) for path in ("/", "/health/ready")]
    first, second = [(answer.status_code, answer.json()["status"]) for answer in found]
    return first, second


@pytest.mark.parametrize(("state", "word"), [("restarting", "recovering"), ("dead", "dead")])
async def test_engines_that_are_gone_in_a_model_that_lives_are_told(
    gateway: Gateway, triton: FakeTriton, state: str, word: str
) -> None:
    assert await _health(gateway) == ((200, "ok"), (200, "ready"))
    triton.info["engines"] = [{"state": state}]
    triton.probe = hang()  # the pool holds prompts while its engine starts again

    async def told() -> bool:
        return await _health(gateway) == ((503, "recovering"), (503, word))

    await until_async(told)
    assert (await gateway.client.get("/health/live")).status_code == 200
    triton.info["engines"] = [{"state": "ready"}]
    triton.probe = echo
    await gateway.wait_ready()
    assert await _health(gateway) == ((200, "ok"), (200, "ready"))


async def test_retries_do_not_hold_two_places(gateway: Gateway, triton: FakeTriton) -> None:
    seen: list[int] = []

    async def note(call: Call) -> AsyncIterator[list[Row]]:
        seen.append(await gateway.prompts_in_flight())
        if len(seen) == 1:
            raise GONE
        yield [Row(index, question) for index, question in enumerate(call.questions)]

    triton.default = note
    assert (await gateway.predict(["a", "b"])).status_code == 200
    assert seen == [2, 2]
    assert await gateway.prompts_in_flight() == 0
