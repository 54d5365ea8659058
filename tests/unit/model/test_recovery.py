"""What becomes of prompts whose engine dies, and of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator

import pytest

from llm_model.engines.base import EngineStatus, GenerationRequest, Sample
from llm_model.engines.pool import EnginePool
from llm_model.engines.supervision import RestartHistory, RestartRule
from llm_model.errors import EngineUnavailable, GenerationFailed, StartupError
from llm_model.parameters import SamplingParameters
from tests.unit.model.fake_engines import for_ever, until
from tests.unit.model.mortal_engine import MortalEngine

POISON = 666
QUICK = RestartRule(first_pause_s=0.01, longest_pause_s=0.01)


def prompt(request_id: str = "r", token: int = 1) -> GenerationRequest:
    return GenerationRequest(request_id, [token] * 3, SamplingParameters(max_tokens=5))


def is_poison(request: GenerationRequest) -> bool:
    return POISON in request.token_ids


@contextlib.asynccontextmanager
async def running(
    *engines: MortalEngine, side_by_side: int = 1, rule: RestartRule = QUICK
) -> AsyncIterator[EnginePool]:
    pool = EnginePool(engines, side_by_side, rule)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


def states(pool: EnginePool) -> list[str]:
    return [status.state for status in pool.status()]


async def test_prompts_of_a_dead_engine_are_answered_by_another() -> None:
    first, second = MortalEngine("a", for_ever), MortalEngine("b")
    first.may_start.clear()
    async with running(first, second) as pool:
        answers = [asyncio.ensure_future(pool.generate(prompt(str(n)))) for n in range(20)]
        await until(lambda: first.running == 10)
        first.die()
        assert [samples[0].token_ids for samples in await asyncio.gather(*answers)] == [[1, 1, 1]] * 20
        assert states(pool) == ["restarting", "ready"]
        first.may_start.set()
        await until(lambda: states(pool) == ["ready", "ready"])
        assert [status.restarts for status in pool.status()] == [1, 0]
        assert [status.outstanding_tokens for status in pool.status()] == [0, 0]


async def test_prompts_of_the_only_engine_wait_for_it() -> None:
    engine = MortalEngine(answer=for_ever)
    engine.may_start.clear()
    async with running(engine) as pool:
        early = asyncio.ensure_future(pool.generate(prompt("early")))
        await until(lambda: engine.running)
        engine.die()
        await until(lambda: states(pool) == ["restarting"])
        late = asyncio.ensure_future(pool.generate(prompt("late")))
        given_up = asyncio.ensure_future(pool.generate(prompt("given up")))
        await asyncio.sleep(0)
        given_up.cancel()  # a caller that goes away need not wait
        with pytest.raises(asyncio.CancelledError):
            await given_up
        engine.answer = MortalEngine().answer
        engine.may_start.set()
        assert len(await asyncio.gather(early, late)) == 2


async def test_a_stream_that_has_begun_ends_with_its_engine() -> None:
    engine = MortalEngine()
    async with running(engine, MortalEngine("b", for_ever)) as pool:
        pieces = pool.stream(prompt())
        await pieces.__anext__()
        engine.die()
        with pytest.raises(EngineUnavailable, match="the engine died in the middle of the answer"):
            await pieces.__anext__()


async def test_a_stream_that_has_not_begun_is_moved() -> None:
    first, second = MortalEngine("a", for_ever), MortalEngine("b")
    first.may_start.clear()
    async with running(first, second) as pool:
        whole = asyncio.ensure_future(_read(pool, prompt()))
        await until(lambda: first.running)
        first.die()
        assert await whole == [1, 1, 1]


async def _read(pool: EnginePool, request: GenerationRequest) -> list[int]:
    return [token for (sample,) in [piece async for piece in pool.stream(request)] for token in sample.token_ids]


# Poison


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_poisonous_prompt_is_tried_alone_and_given_up_and_the_innocent_are_answered(count: int) -> None:
    async def slowly(request: GenerationRequest) -> list[Sample]:
        await asyncio.sleep(0.002)
        return [Sample(0, list(request.token_ids), finish_reason="length")]

    engines = [MortalEngine(f"e{n}", slowly, is_poison) for n in range(count)]
    async with running(*engines) as pool:
        innocent = [asyncio.ensure_future(pool.generate(prompt(str(n)))) for n in range(30)]
        poisonous = asyncio.ensure_future(pool.generate(prompt("poison", POISON)))
        innocent += [asyncio.ensure_future(pool.generate(prompt(str(n)))) for n in range(30, 60)]
        with pytest.raises(GenerationFailed, match="the prompt was given up: 3 engines died with it"):
            await poisonous
        assert len(await asyncio.gather(*innocent)) == 60
        assert sum(engine.starts - 1 for engine in engines) <= 3
        assert [alone for engine in engines for alone in engine.tried_alone][-1:] == ["poison"]
        await until(lambda: set(states(pool)) == {"ready"})


async def test_nothing_else_runs_on_the_engine_of_a_suspect() -> None:
    engine = MortalEngine(answer=for_ever)
    async with running(engine) as pool:
        suspect = asyncio.ensure_future(pool.generate(prompt("suspect")))
        for _ in range(2):
            engine.may_start.set()
            await until(lambda: engine.running == 1)
            engine.may_start.clear()
            engine.die()
            await until(lambda: states(pool) == ["restarting"] and not engine.running)
        others = [asyncio.ensure_future(pool.generate(prompt(str(n)))) for n in range(5)]
        await asyncio.sleep(0.01)
        engine.may_start.set()
        await until(lambda: engine.running)
        await asyncio.sleep(0.01)
        assert [request.request_id for request in engine.requests][-1] == "suspect"
        assert engine.running == 1
        suspect.cancel()
        engine.answer = MortalEngine().answer
        assert len(await asyncio.gather(*others)) == 5


# Turns


class EngineOnGpu(MortalEngine):
    """Its restarts wait for :attr:`may_start`."""

    def __init__(self, name: str, gpu: str) -> None:
        self.gpu = gpu
        super().__init__(name)
        self.may_start.clear()
        self.is_starting = False

    def status(self) -> EngineStatus:
        return dataclasses.replace(super().status(), gpu=self.gpu)

    async def start(self) -> None:
        self.is_starting = True
        try:
            await super().start()
        finally:
            self.is_starting = False


def on_gpus(*gpus: str) -> list[EngineOnGpu]:
    return [EngineOnGpu(f"e{number}", gpu) for number, gpu in enumerate(gpus)]


async def starting(engines: list[EngineOnGpu], count: int) -> list[EngineOnGpu]:
    """The engines that start, once there are so many and all others have had the time to."""
    await until(lambda: sum(engine.is_starting for engine in engines) == count)
    await asyncio.sleep(0.02)
    return [engine for engine in engines if engine.is_starting]


async def test_engines_that_died_together_start_again_one_after_the_other_on_each_gpu() -> None:
    engines = on_gpus("0", "0", "1", "1")
    async with running(*engines, side_by_side=2) as pool:
        for engine in engines:
            engine.die()
        for _ in range(2):
            turn = await starting(engines, 2)
            assert {engine.gpu for engine in turn} == {"0", "1"}
            for engine in turn:
                engine.may_start.set()
        await until(lambda: states(pool) == ["ready"] * 4)
        assert [engine.starts for engine in engines] == [2] * 4


async def test_as_many_start_again_at_a_time_as_may() -> None:
    engines = on_gpus("0", "0", "0")
    async with running(*engines, side_by_side=2):
        for engine in engines:
            engine.die()
        assert len(await starting(engines, 2)) == 2


async def test_an_engine_that_fails_lets_the_next_one_start() -> None:
    engines = on_gpus("0", "0")
    async with running(*engines, rule=RestartRule(first_pause_s=60)) as pool:
        for engine in engines:
            engine.die()
        (first,) = await starting(engines, 1)
        first.start_results = [StartupError("no memory")]
        first.may_start.set()
        await until(lambda: not first.is_starting)
        (second,) = await starting(engines, 1)
        assert second is not first
        second.may_start.set()
        await until(lambda: "ready" in states(pool))


# The end


async def test_an_engine_that_cannot_be_started_again_is_given_up_and_says_so() -> None:
    engine = MortalEngine()
    engine_starts = [StartupError("no memory")] * QUICK.failures
    async with running(engine) as pool:
        engine.start_results = list(engine_starts)
        engine.die()
        waiting = asyncio.ensure_future(pool.generate(prompt()))
        with pytest.raises(EngineUnavailable, match="no engine is alive"):
            await waiting
        assert states(pool) == ["dead"]
        assert engine.starts == 1 + QUICK.failures
        assert pool.figures()["mortal-0"].gauges["llm:engine_alive"] == 0


async def test_a_start_that_failed_is_tried_again() -> None:
    engine = MortalEngine()
    async with running(engine) as pool:
        engine.start_results = [StartupError("busy")] * (QUICK.failures - 1)
        engine.die()
        assert await pool.generate(prompt())
        assert states(pool) == ["ready"]


def test_pauses_between_starts_grow_up_to_a_limit() -> None:
    history = RestartHistory(RestartRule(failures=6, first_pause_s=1, longest_pause_s=5), lambda: 0.0)
    history.died()
    pauses = []
    while (pause := history.next_pause_s()) is not None:
        pauses.append(pause)
        history.failed()
    assert pauses == [0, 1, 2, 4, 5, 5]


def test_deaths_count_within_their_window_only() -> None:
    now = 0.0
    history = RestartHistory(RestartRule(deaths=2, window_s=10), lambda: now)
    for _ in range(2):
        history.died()
        assert history.next_pause_s() == 0
    now = 11.0
    history.died()
    assert history.next_pause_s() == 0
    history.died()
    history.died()
    assert history.next_pause_s() is None
