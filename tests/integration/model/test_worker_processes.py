"""Engines in real processes of their own, killed and stopped under load. The engine in them needs no weights."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llm_model.engines import process_tree, worker_engine
from llm_model.engines.base import GenerationRequest, Sample
from llm_model.engines.liveness import HangRule
from llm_model.engines.pool import EnginePool
from llm_model.engines.worker_engine import WorkerEngine, WorkerSpec, WrongDevice
from llm_model.errors import EngineRefused, EngineUnavailable, GenerationFailed, StartupError
from llm_model.parameters import SamplingParameters
from llm_model.settings import ModelSettings
from tests.fakes.worker_engines import FOLDER, POISON

SETTINGS = ModelSettings.from_env({"LOG_LEVEL": "WARNING"})
PATIENCE_S = 60.0  # for a busy machine


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the engines' processes put what they must not leave behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def engine(name: str = "e0", make: str = "slow_echo", hang_s: float = 60.0, device: str | None = None) -> WorkerEngine:
    factory = f"worker_engines:{make}"
    spec = WorkerSpec(name, SETTINGS, 4096, factory, folders=[FOLDER], device=device)
    return WorkerEngine(spec, HangRule(hang_s))


@contextlib.asynccontextmanager
async def running(*engines: WorkerEngine) -> AsyncIterator[EnginePool]:
    """A running pool; afterwards nothing of its engines is left."""
    pool = EnginePool(engines, side_by_side=len(engines))
    await pool.start()
    sessions = pids(pool)
    try:
        yield pool
        sessions += pids(pool)
    finally:
        await pool.stop()
    assert [member for pid in sessions for member in process_tree.session_members(pid)] == []
    assert os.listdir(tempfile.gettempdir()) == []


def pids(pool: EnginePool) -> list[int]:
    return [status.pid for status in pool.status() if status.pid is not None]


def prompt(pool: EnginePool, tokens: list[int], max_tokens: int = 10) -> GenerationRequest:
    return GenerationRequest(pool.next_request_id(), tokens, SamplingParameters(max_tokens=max_tokens))


async def ask(pool: EnginePool, number: int, max_tokens: int = 50) -> list[int]:
    (sample,) = await pool.generate(prompt(pool, [number] * max_tokens, max_tokens))
    return sample.token_ids


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.01)


def states(pool: EnginePool) -> list[str]:
    return [status.state for status in pool.status()]


# An engine at work


async def test_an_engine_answers_streams_and_refuses_through_its_process() -> None:
    async with running(engine()) as pool:
        (status,) = pool.status()
        assert (status.name, status.state, status.restarts) == ("e0", "ready", 0)
        assert status.pid not in (None, os.getpid())
        assert await pool.generate(prompt(pool, [1, 2, 3])) == [Sample(0, [1, 2, 3], None, "length")]
        pieces = [piece async for piece in pool.stream(prompt(pool, [4, 5]))]
        assert [sample.token_ids for (sample,) in pieces] == [[4], [5]]
        assert await asyncio.gather(*(ask(pool, n, 3) for n in range(300))) == [[n] * 3 for n in range(300)]
        await until(lambda: pool.figures()["e0"].counters["vllm:generation_tokens_total", ()] == 3 + 2 + 900)


async def test_what_is_cancelled_leaves_the_engine() -> None:
    async with running(engine()) as pool:
        asked = [asyncio.ensure_future(ask(pool, n, 4000)) for n in range(100)]
        pieces = pool.stream(prompt(pool, [1] * 4000, 4000))
        await pieces.__anext__()
        await until(lambda: pool.status()[0].running == 101)
        for task in asked:
            task.cancel()
        await pieces.aclose()
        await until(lambda: pool.status()[0].running == 0)
        assert await ask(pool, 7, 2) == [7, 7]


async def test_processes_that_an_engine_forks_keep_what_they_open() -> None:
    async with running(engine(make="with_forked_grandchild")) as pool:
        assert await ask(pool, 7, 2) == [7, 7]


# Starts that fail


@pytest.mark.parametrize(
    "make, error, told",
    [
        ("refusing", EngineRefused, "this model is not for me"),
        ("crashing", EngineRefused, "e0 cannot be loaded: its process was killed by signal 4"),
        ("failing", StartupError, "no memory"),
        ("broken", StartupError, "ValueError: a surprise"),
        ("crashing_later", StartupError, "e0 cannot start: its process ended with status 3"),
    ],
)
async def test_a_start_that_fails_says_why_in_one_line(make: str, error: type[Exception], told: str) -> None:
    started = engine(make=make)
    with pytest.raises(error) as caught:
        await started.start()
    assert (type(caught.value), str(caught.value)) == (error, told)
    assert (started.status().state, started.status().pid) == ("dead", None)


async def test_another_device_than_planned_is_refused() -> None:
    with pytest.raises(WrongDevice):
        await engine(device="gpu").start()


async def test_one_engine_that_cannot_start_ends_all() -> None:
    good = engine("good")
    with pytest.raises(StartupError, match="no memory"):
        await EnginePool([good, engine("bad", "failing")], side_by_side=2).start()
    assert (good.is_alive(), good.status().pid) == (False, None)


# Faults


async def test_no_request_fails_when_one_of_two_engines_is_killed() -> None:
    async with running(engine("a"), engine("b")) as pool:
        asked = [asyncio.ensure_future(ask(pool, n)) for n in range(200)]
        await until(lambda: all(status.running == 100 for status in pool.status()))
        killed = pids(pool)[0]
        os.kill(killed, signal.SIGKILL)
        assert await asyncio.gather(*asked) == [[n] * 50 for n in range(200)]
        await until(lambda: states(pool) == ["ready", "ready"])
        assert [status.restarts for status in pool.status()] == [1, 0]
        assert killed not in pids(pool)
        assert await ask(pool, 3, 2) == [3, 3]


async def test_the_only_engine_is_restarted_and_its_figures_go_on() -> None:
    async with running(engine()) as pool:
        await ask(pool, 1, 4)

        def tokens() -> float:
            return pool.figures()["e0"].counters["vllm:generation_tokens_total", ()]

        await until(lambda: tokens() == 4)
        asked = [asyncio.ensure_future(ask(pool, n, 3)) for n in range(50)]
        pieces = pool.stream(prompt(pool, [1] * 400, 400))
        await pieces.__anext__()
        os.kill(pids(pool)[0], signal.SIGKILL)
        with pytest.raises(EngineUnavailable, match="in the middle of the answer"):
            async for _ in pieces:
                pass
        assert await asyncio.gather(*asked) == [[n] * 3 for n in range(50)]
        await ask(pool, 1, 4)
        await until(lambda: tokens() >= 8)
        assert pool.figures()["e0"].counters["llm:engine_restarts_total", ()] == 1


async def test_an_engine_whose_child_dies_is_restarted_and_no_process_outlives_it() -> None:
    async with running(engine(make="with_child")) as pool:
        (worker,) = pids(pool)
        (child,) = process_tree.vital_children(worker)
        asked = [asyncio.ensure_future(ask(pool, n)) for n in range(20)]
        await until(lambda: pool.status()[0].running == 20)
        os.kill(child.pid, signal.SIGKILL)
        assert await asyncio.gather(*asked) == [[n] * 50 for n in range(20)]
        assert pool.status()[0].restarts == 1
        assert process_tree.session_members(worker) == []


@pytest.mark.parametrize("make", ["slow_echo", "with_child"])
async def test_a_stopped_engine_counts_as_hung_and_its_prompts_are_moved(make: str) -> None:
    async with running(engine("a", make, hang_s=2.0), engine("b", make, hang_s=2.0)) as pool:
        asked = [asyncio.ensure_future(ask(pool, n)) for n in range(40)]
        await until(lambda: all(status.running == 20 for status in pool.status()))
        stopped = pids(pool)[0]
        os.kill(stopped, signal.SIGSTOP)
        assert await asyncio.gather(*asked) == [[n] * 50 for n in range(40)]
        await until(lambda: states(pool) == ["ready", "ready"])
        assert process_tree.session_members(stopped) == []


async def test_an_engine_that_makes_no_steps_is_hung_though_its_process_lives(tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("model")
    settings = ModelSettings.from_env({"MODEL_DIR": str(folder), "LOG_LEVEL": "WARNING"})
    spec = WorkerSpec("e0", settings, 4096, "worker_engines:stuck", folders=[FOLDER])
    async with running(WorkerEngine(spec, HangRule(2.0))) as pool:
        asked = [asyncio.ensure_future(ask(pool, n)) for n in range(20)]
        assert await asyncio.gather(*asked) == [[n] * 50 for n in range(20)]
        assert pool.status()[0].restarts == 1


async def test_a_first_start_that_hangs_is_given_up(tmp_path: Path) -> None:
    environ = {"MODEL_DIR": str(tmp_path), "LOG_LEVEL": "WARNING", "ENGINE_START_S": "2"}
    spec = WorkerSpec("e0", ModelSettings.from_env(environ), 4096, "worker_engines:never", folders=[FOLDER])
    hanging = WorkerEngine(spec, HangRule())
    with pytest.raises(StartupError, match="e0 cannot start: not ready within 2 s"):
        await hanging.start()
    assert (hanging.status().state, hanging.status().pid) == ("dead", None)


async def test_a_later_start_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker_engine, "_START_MARGIN_S", 0.0)
    settings = ModelSettings.from_env({"MODEL_DIR": str(tmp_path), "LOG_LEVEL": "WARNING"})
    spec = WorkerSpec("e0", settings, 4096, "worker_engines:never_again", folders=[FOLDER])
    started = WorkerEngine(spec, HangRule())
    try:
        await started.start()
        pid = started.status().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await started.wait_dead()
        with pytest.raises(StartupError, match="e0 cannot start: not ready within"):
            await started.start()
        assert (started.status().state, started.status().pid) == ("dead", None)
    finally:
        await started.stop()


async def test_a_stopped_engine_at_rest_is_noticed_too() -> None:
    async with running(engine(hang_s=2.0)) as pool:
        await ask(pool, 1, 1)
        os.kill(pids(pool)[0], signal.SIGSTOP)
        await until(lambda: pool.status()[0].restarts == 1)
        assert await ask(pool, 1, 1) == [1]


async def test_a_poisonous_prompt_costs_three_engines_and_no_other_request() -> None:
    async with running(engine("a"), engine("b")) as pool:
        innocent = [asyncio.ensure_future(ask(pool, n, 5)) for n in range(10)]
        with pytest.raises(GenerationFailed, match="3 engines died with it, the last one with no other prompt"):
            await ask(pool, POISON, 5)
        assert await asyncio.gather(*innocent) == [[n] * 5 for n in range(10)]
        await until(lambda: states(pool) == ["ready", "ready"])
        assert sum(status.restarts for status in pool.status()) == 3


async def test_a_worker_ends_with_the_process_that_started_it() -> None:
    started = engine(make="with_child")
    await started.start()
    pid = started.status().pid
    assert pid is not None
    assert started._client is not None
    started._client._link.close()  # what the kernel does for a process that was killed
    await until(lambda: process_tree.session_members(pid) == [])
    await started.stop()
