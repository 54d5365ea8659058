"""The pool: who takes the next prompt, and that what is outstanding is always given back."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from llm_model.engines.base import EngineStatus, GenerationRequest, Outcome, Sample
from llm_model.engines.echo import EchoEngine
from llm_model.engines.pool import EnginePool
from llm_model.errors import EngineDied, EngineUnavailable, GenerationFailed, StartupError
from llm_model.parameters import SamplingParameters
from tests.unit.model.fake_engines import ScriptedEngine, echo, for_ever, raising, until


def prompt(tokens: int = 3, max_tokens: int = 5, n: int = 1) -> GenerationRequest:
    return GenerationRequest("r", [1] * tokens, SamplingParameters(max_tokens=max_tokens, n=n))


def two() -> tuple[EnginePool, ScriptedEngine, ScriptedEngine]:
    engines = ScriptedEngine("a", for_ever), ScriptedEngine("b", for_ever)
    return EnginePool(engines), *engines


def outstanding(pool: EnginePool) -> dict[str, int]:
    return {status.name: status.outstanding_tokens for status in pool.status()}


@contextlib.asynccontextmanager
async def running(*coroutines):  # type: ignore[no-untyped-def]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_work_is_prompt_and_completion_of_all_samples() -> None:
    pool, first, _ = two()
    async with running(pool.generate(prompt(tokens=3, max_tokens=5, n=4))):
        await until(lambda: first.running)
        assert outstanding(pool) == {"a": 23, "b": 0}
    assert outstanding(pool) == {"a": 0, "b": 0}


async def test_the_engine_with_the_least_outstanding_work_is_next() -> None:
    pool, first, second = two()
    async with running(pool.generate(prompt(100)), *(pool.generate(prompt(20)) for _ in range(4))):
        await until(lambda: first.running + second.running == 5)
        assert (first.running, second.running) == (1, 4)
        async with running(pool.generate(prompt(20)), pool.generate(prompt(1))):
            await until(lambda: first.running + second.running == 7)
            assert (first.running, second.running) == (2, 5)  # 105 of work here, 100 there; then 130 and 100


async def test_many_equal_prompts_are_spread_evenly() -> None:
    pool, first, second = two()
    async with running(*(pool.generate(prompt()) for _ in range(40))):
        await until(lambda: first.running + second.running == 40)
        assert (first.running, second.running) == (20, 20)


async def test_dead_engines_are_skipped() -> None:
    pool, first, second = two()
    first.answer = second.answer = echo
    first.alive = False
    for _ in range(3):
        await pool.generate(prompt())
    async for _ in pool.stream(prompt()):
        pass
    assert (len(first.requests), len(second.requests)) == (0, 4)


async def test_without_a_live_engine_there_is_one_clear_error() -> None:
    pool, first, second = two()
    first.alive = second.alive = False
    with pytest.raises(EngineUnavailable, match="no engine is alive"):
        await pool.generate(prompt())
    with pytest.raises(EngineUnavailable, match="no engine is alive"):
        async for _ in pool.stream(prompt()):
            pass
    assert outstanding(pool) == {"a": 0, "b": 0}


@pytest.mark.parametrize("error", [GenerationFailed("x"), ValueError("x")])
async def test_what_failed_is_no_longer_outstanding(error: Exception) -> None:
    pool, first, _ = two()
    first.answer = raising(error)
    with pytest.raises(type(error)):
        await pool.generate(prompt())
    with pytest.raises(type(error)):
        async for _ in pool.stream(prompt()):
            pass
    assert outstanding(pool) == {"a": 0, "b": 0}


async def test_what_was_cancelled_is_no_longer_outstanding() -> None:
    pool, first, _ = two()
    task = asyncio.ensure_future(pool.generate(prompt()))
    await until(lambda: first.running)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (first.aborted, first.running, outstanding(pool)) == (1, 0, {"a": 0, "b": 0})


async def test_a_stream_that_is_closed_is_no_longer_outstanding() -> None:
    pool, first, _ = two()
    first.answer = echo
    pieces = pool.stream(prompt(n=2))
    assert [sample.index for sample in await pieces.__anext__()] == [0]
    assert outstanding(pool)["a"] == 13
    await pieces.aclose()
    assert outstanding(pool) == {"a": 0, "b": 0}


async def test_closing_a_stream_aborts_it_in_the_engine_at_once() -> None:
    engine = EchoEngine("echo", lambda ids, skip: "")
    await engine.start()
    pieces = EnginePool([engine]).stream(prompt())
    await pieces.__anext__()
    assert engine.status().running == 1
    await pieces.aclose()
    assert engine.status().running == 0


async def test_request_ids_are_our_own_and_never_repeat() -> None:
    pool, *_ = two()
    assert len({pool.next_request_id() for _ in range(100)}) == 100


async def test_engines_start_one_after_the_other_and_stop_together() -> None:
    order: list[str] = []

    class Slow(ScriptedEngine):
        async def start(self) -> None:
            order.append(f"{self.name} begins")
            await asyncio.sleep(0)
            order.append(f"{self.name} is ready")

    engines = [Slow("a"), Slow("b")]
    pool = EnginePool(engines)
    await pool.start()
    assert order == ["a begins", "a is ready", "b begins", "b is ready"]
    await pool.stop()
    assert [engine.stops for engine in engines] == [1, 1]


async def test_an_engine_that_cannot_start_ends_the_start() -> None:
    class Broken(ScriptedEngine):
        async def start(self) -> None:
            raise StartupError("no memory")

    last = ScriptedEngine("b")
    with pytest.raises(StartupError, match="no memory"):
        await EnginePool([Broken("a"), last]).start()
    assert last.starts == 0


async def test_an_engines_own_count_of_tokens_goes_before_the_pools() -> None:
    class Counting(ScriptedEngine):
        def status(self) -> EngineStatus:
            return EngineStatus(self.name, "ready", outstanding_tokens=7)

    assert outstanding(EnginePool([Counting("a"), ScriptedEngine("b")])) == {"a": 7, "b": 0}


async def test_a_batch_fills_the_places_of_all_engines_before_a_row_waits() -> None:
    class Bounded(ScriptedEngine):
        def status(self) -> EngineStatus:
            return EngineStatus(self.name, "ready", batch_places=2)

    engines = [Bounded(name, for_ever) for name in "ab"]
    pool = EnginePool(engines)
    await pool.start()
    runs = pool.begin_all((request, lambda _: None) for request in (prompt(50), prompt(), prompt(), prompt()))
    await until(lambda: sum(engine.running for engine in engines) == 4)
    assert [engine.running for engine in engines] == [2, 2]
    for run in runs:
        run.cancel()
    await pool.stop()


async def test_reading_the_figures_adds_none_while_the_event_loop_copies() -> None:
    engine = ScriptedEngine("a")
    pool, stats = EnginePool([engine]), engine.stats
    stats.count("vllm:generation_tokens_total", 1)
    for _ in stats.counters.items():  # as the event loop does
        pool.figures()
    assert (stats.gauges["llm:engine_alive"], stats.counters["llm:engine_restarts_total", ()]) == (1.0, 0.0)


# A prompt for every engine


async def begun(pool: EnginePool, *, on_each: bool) -> Outcome:
    """The outcome of a prompt."""
    told: list[Outcome] = []
    pool.begin_all([(prompt(), told.append)], on_each=on_each)
    await until(lambda: bool(told))
    return told[0]


async def test_a_prompt_for_every_engine_runs_on_each_under_an_id_of_its_own() -> None:
    engines = [ScriptedEngine(name) for name in "abcd"]
    pool = EnginePool(engines)
    await pool.start()
    assert await begun(pool, on_each=True) == [Sample(0, [1, 1, 1], None, "length")]
    assert [len(engine.requests) for engine in engines] == [1, 1, 1, 1]
    assert len({engine.requests[0].request_id for engine in engines}) == 4
    await begun(pool, on_each=False)
    assert sum(len(engine.requests) for engine in engines) == 4 + 1
    assert set(outstanding(pool).values()) == {0}


async def test_an_engine_that_does_not_answer_a_prompt_for_all_is_named_and_the_others_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="llm.model")
    engines = [ScriptedEngine("a", raising(EngineDied("killed"))), ScriptedEngine("b")]
    assert await EnginePool(engines).generate_on_each(prompt()) == [Sample(0, [1, 1, 1], None, "length")]
    assert "the engine a did not answer a prompt for all of them" in caplog.text


async def test_a_prompt_for_all_that_no_engine_answers_ends_with_an_error() -> None:
    pool, first, second = two()
    first.answer = second.answer = raising(GenerationFailed("bad weights"))
    with pytest.raises(GenerationFailed, match="bad weights"):
        await pool.generate_on_each(prompt())


async def test_a_prompt_for_all_that_is_cancelled_leaves_all_engines() -> None:
    pool, first, second = two()
    await pool.start()
    (run,) = pool.begin_all([(prompt(), lambda outcome: None)], on_each=True)
    await until(lambda: first.running + second.running == 2)
    assert run.cancel()
    await until(lambda: not first.running + second.running)
    assert (first.aborted, second.aborted, outstanding(pool)) == (1, 1, {"a": 0, "b": 0})
