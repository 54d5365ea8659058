"""A prompt without a task: begun at once, told once, given up cleanly, and taken up by a task when its engine dies."""

from __future__ import annotations

import asyncio

import pytest

from llm_model.engines.base import CallbackEngine, Done, GenerationRequest, Outcome, Sample
from llm_model.engines.pool import EnginePool
from llm_model.engines.prompt_run import PromptRun
from llm_model.errors import EngineDied, GenerationFailed, InvalidArgument
from llm_model.parameters import SamplingParameters
from tests.unit.model.fake_engines import ScriptedEngine, echo, for_ever, raising, until

PROMPT = GenerationRequest("r", [1, 2, 3], SamplingParameters(max_tokens=5))
SAMPLES = [Sample(0, [1, 2, 3], None, "length")]


class HeldEngine(ScriptedEngine):
    """Keeps what it is told to begin until the test ends it."""

    def __init__(self, name: str = "held-0") -> None:
        super().__init__(name)
        self.begun: dict[str, Done] = {}
        self.cancelled: list[str] = []

    def begin(self, request: GenerationRequest, done: Done) -> None:
        self.begun[request.request_id] = done

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)


def begin(pool: EnginePool, done: Done) -> PromptRun:
    (run,) = pool.begin_all([(PROMPT, done)])
    return run


def work(pool: EnginePool) -> list[int]:
    return [status.outstanding_tokens for status in pool.status()]


def test_the_fake_takes_callbacks_and_the_others_do_not() -> None:
    assert isinstance(HeldEngine(), CallbackEngine)
    assert not isinstance(ScriptedEngine(), CallbackEngine)


@pytest.mark.parametrize("outcome", [SAMPLES, InvalidArgument("no")])
async def test_an_engine_that_takes_callbacks_needs_no_task(outcome: Outcome) -> None:
    engine = HeldEngine()
    pool, told, tasks = EnginePool([engine]), [], asyncio.all_tasks()
    run = begin(pool, told.append)
    assert (list(engine.begun), work(pool), told) == (["r"], [8], [])
    engine.begun["r"](outcome)
    assert (told, work(pool)) == ([outcome], [0])
    assert asyncio.all_tasks() == tasks
    assert not run.cancel()
    assert engine.cancelled == []


async def test_a_run_that_is_cancelled_tells_nothing() -> None:
    engine = HeldEngine()
    pool, told = EnginePool([engine]), []
    run = begin(pool, told.append)
    assert run.cancel()
    assert (engine.cancelled, work(pool)) == (["r"], [0])
    assert not run.cancel()
    assert (engine.cancelled, told) == (["r"], [])


async def test_after_a_death_another_engine_finishes_it() -> None:
    dying, other = HeldEngine("a"), ScriptedEngine("b", echo)
    pool, told = EnginePool([dying, other]), []
    begin(pool, told.append)
    dying.alive = False
    dying.begun["r"](EngineDied("killed"))
    assert work(pool) == [0, 0]
    await until(lambda: told)
    assert told == [SAMPLES]
    assert [request.request_id for request in other.requests] == ["r"]


async def test_deaths_are_counted_from_the_first_on() -> None:
    """One on the engine with callbacks, then two in the task: the third one is alone, and its prompt is given up."""
    dying, others = HeldEngine("a"), [ScriptedEngine(name, raising(EngineDied("killed"))) for name in "bc"]
    pool, told = EnginePool([dying, *others]), []
    begin(pool, told.append)
    dying.alive = False
    dying.begun["r"](EngineDied("killed"))
    await until(lambda: told)
    assert isinstance(told[0], GenerationFailed)
    assert sum(len(other.requests) for other in others) == 2


async def test_it_may_be_cancelled_in_its_task_too() -> None:
    engine = ScriptedEngine("a", for_ever)
    pool, told = EnginePool([engine]), []
    run = begin(pool, told.append)
    await until(lambda: engine.running)
    assert run.cancel()
    await until(lambda: not engine.running)
    assert (engine.aborted, work(pool), told) == (1, [0], [])
    assert not run.cancel()


async def test_without_a_live_engine_the_error_is_told() -> None:
    engine = HeldEngine()
    engine.alive = False
    told: list[Outcome] = []
    begin(EnginePool([engine]), told.append)
    await until(lambda: told)
    assert str(told[0]).endswith("no engine is alive")
