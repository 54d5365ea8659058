"""Calls whose rows are single prompts of many callers: each goes before batches, and ends alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import triton_python_backend_utils as pb_utils

from llm_model import tensors
from llm_model.engines.base import GenerationRequest, Sample
from llm_model.errors import InvalidArgument
from llm_model.generation import SINGLE, Generator
from llm_model.row_cancellation import CancellableRows, OpenCalls, RowCancellation
from llm_model.rows import Row
from llm_model.service import ModelService
from tests.unit.model.fake_engines import ScriptedEngine, echo, for_ever, until
from tests.unit.model.generating import call, errors
from tests.unit.model.running import answer, only_error, read, request, rows_of
from tests.waiting import wait_until

KEY = {"row_key": "k1"}


async def hang_on_b(asked: GenerationRequest) -> list[Sample]:
    """Answer all prompts but the longest, which never ends."""
    return await (for_ever(asked) if len(asked.token_ids) > 3 else echo(asked))


# Tensors


def test_a_key_is_read_and_its_rows_are_singles() -> None:
    found = read(request(["a", "b"], "partial", parameters=KEY))
    assert (found.row_key, found.holds_singles) == ("k1", True)
    plain = read(request(["a", "b"], "partial"))
    assert (plain.row_key, plain.holds_singles) == ("", False)
    assert read(request(["a"])).holds_singles


def test_a_key_is_no_sampling_parameter() -> None:
    found = read(request(["a"], "partial", parameters={**KEY, "max_tokens": 3}))
    assert [params.max_tokens for params in found.params if not isinstance(params, InvalidArgument)] == [3]


@pytest.mark.parametrize("key", [5, True, "x" * 129])
def test_a_key_must_be_a_short_text(key: Any) -> None:
    with pytest.raises(InvalidArgument, match="'row_key' is no text of at most 128 characters"):
        read(request(["a"], "partial", parameters={"row_key": key}))


def test_a_key_needs_partial_answers() -> None:
    with pytest.raises(InvalidArgument, match="'row_key' needs the input 'partial'"):
        read(request(["a", "b"], parameters=KEY))


def test_a_cancellation_names_rows() -> None:
    assert tensors.read_cancellation({**KEY, "cancel_rows": "3,12"}) == RowCancellation("k1", [3, 12])
    assert tensors.read_cancellation(KEY) is None


@pytest.mark.parametrize("rows", ["", "a", "1,", "-1", "1;2", "²", "9" * 30, None, ["1"]])
def test_a_cancellation_of_no_rows_is_refused(rows: Any) -> None:
    if rows is None:
        assert tensors.read_cancellation({"cancel_rows": None}) is None
        return
    with pytest.raises(InvalidArgument, match="'cancel_rows' has value"):
        tensors.read_cancellation({**KEY, "cancel_rows": rows})


# Generation


async def test_rows_with_a_key_go_before_batches(generator: Generator, engine: ScriptedEngine) -> None:
    async for _ in generator.run(call(["a", "b"], partial=True, row_key="k1")):
        pass
    assert [asked.priority for asked in engine.requests] == [SINGLE, SINGLE]


async def test_a_cancelled_row_ends_alone(generator: Generator, engine: ScriptedEngine) -> None:
    engine.answer = hang_on_b
    of = call(["a", "b" * 9, "c"], partial=True, row_key="k1")
    found: list[Row] = []

    async def collect() -> None:
        async for rows in generator.run(of):
            found.extend(rows)

    collecting = asyncio.create_task(collect())
    await until(lambda: len(found) == 2)
    assert engine.running == 1
    of.cancellable_rows.cancel([1])
    await asyncio.wait_for(collecting, 5)
    assert (engine.running, engine.aborted) == (0, 1)
    assert sorted(row.index for row in found) == [0, 1, 2]
    assert [error for error in errors(found) if error] == ["INTERNAL: the row was cancelled"]


@pytest.mark.parametrize("begins", [False, True])
async def test_rows_may_be_cancelled_before_they_begin(
    generator: Generator, engine: ScriptedEngine, begins: bool
) -> None:
    engine.answer = for_ever
    of = call(["a", "b"], partial=True, row_key="k1")
    if not begins:
        of.cancellable_rows.cancel([0, 1])
    running = generator.run(of)
    collecting = asyncio.ensure_future(anext(running))
    if begins:
        await until(lambda: engine.running == 2)
        of.cancellable_rows.cancel([0, 1, 7])
    found = await asyncio.wait_for(collecting, 5)
    found += [row async for rows in running for row in rows]
    assert sorted(row.index for row in found) == [0, 1]
    assert all(errors(found))
    assert engine.running == 0


# Open calls


def test_a_call_that_ends_takes_no_other_with_its_key_along() -> None:
    ended: list[str] = []
    first, second = CancellableRows(), CancellableRows()
    first.add(0, lambda: ended.append("first"))
    second.add(0, lambda: ended.append("second"))
    calls = OpenCalls()
    calls.enter("k1", first)
    calls.enter("k1", second)
    calls.leave("k1", first)
    calls.cancel(RowCancellation("k1", [0]))
    assert ended == ["second"]
    calls.leave("k1", second)
    calls.cancel(RowCancellation("k1", [0]))
    assert ended == ["second"]


# Service


@pytest.mark.parametrize("rows", ["0", "0,1"])
def test_a_cancellation_right_behind_its_call_is_not_lost(
    start_service: Callable[..., ModelService], engine: ScriptedEngine, rows: str
) -> None:
    service = start_service(engine)
    engine.answer = for_ever if rows == "0,1" else hang_on_b
    asked, wish = request(["b" * 9, "a"], "partial", parameters=KEY), request(parameters={**KEY, "cancel_rows": rows})

    def submit_both() -> None:  # on the event loop: what both are to do is due in its same turn
        service.submit(asked)
        service.submit(wish)

    service._loop.call_soon_threadsafe(submit_both)
    assert sorted(rows_of(asked.sender.wait_closed())) == [0, 1]
    assert not wish.sender.wait_closed()[0].has_error()
    assert engine.running == 0
    wait_until(lambda: not service._open_calls._calls)


def test_a_row_is_cancelled_by_a_request_of_its_own(
    start_service: Callable[..., ModelService], engine: ScriptedEngine
) -> None:
    service = start_service(engine)
    engine.answer = hang_on_b
    warmed_up = len(engine.requests)
    asked = request(["a", "b" * 9], "partial", exclude=True, parameters=KEY)
    service.submit(asked)
    wait_until(lambda: engine.running == 1 and len(engine.requests) == warmed_up + 2)
    (told,) = answer(service, request(parameters={"row_key": "another", "cancel_rows": "1"}))
    assert not told.has_error()
    assert engine.running == 1
    (told,) = answer(service, request(parameters={**KEY, "cancel_rows": "1"}))
    assert not told.has_error()
    found = rows_of(asked.sender.wait_closed(), "error")
    assert sorted(found) == [0, 1]
    assert (engine.running, engine.aborted) == (0, 1)


def test_a_bad_cancellation_is_refused(start_service: Callable[..., ModelService], engine: ScriptedEngine) -> None:
    service = start_service(engine)
    code, told = only_error(answer(service, request(parameters={**KEY, "cancel_rows": "x"})))
    assert code == pb_utils.TritonError.INVALID_ARG
    assert told == "INVALID_ARG: 'cancel_rows' has value 'x'. Allowed are row numbers with commas"
