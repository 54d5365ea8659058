"""The transformers engine starts, fails and stops, over a model of a few lines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from llm_model.engines.base import Sample
from llm_model.engines.transformers_engine import TransformersConfig, TransformersEngine
from llm_model.errors import EngineUnavailable, GenerationFailed, StartupError
from tests.fakes.decoding_model import (
    FATAL_POISON,
    POISON,
    FakeModel,
    continuation,
    count_up,
    eventually,
)
from tests.unit.model.transformers_running import CONFIG, is_idle, request, started, tokens_of

# Failures


async def test_failing_batch_fails_its_rows_and_the_engine_goes_on() -> None:
    model = FakeModel(max_rows=1)
    async with started(model) as engine:
        results = await asyncio.gather(
            *(tokens_of(engine, request(prompt)) for prompt in ([11], [POISON], [12])), return_exceptions=True
        )
        assert engine.is_alive()
        assert is_idle(engine)
    assert [results[0], results[2]] == [continuation([11], 8), continuation([12], 8)]
    assert isinstance(results[1], GenerationFailed)
    assert "poisoned" not in str(results[1])  # the cause is for the log
    assert model.tidied == 1


async def test_stream_delivers_what_it_has_before_the_failure() -> None:
    def fails_later(sequence: Sequence[int]) -> int:
        return POISON if len(sequence) == 4 else count_up(sequence)

    async with started(FakeModel(fails_later)) as engine:
        pieces: list[Sample] = []

        async def read() -> None:
            async for samples in engine.stream(request([11], detokenize=True, max_tokens=20)):
                pieces.extend(samples)

        with pytest.raises(GenerationFailed):
            await read()
    assert [token for piece in pieces for token in piece.token_ids] == [12, 13, 14, POISON]


async def test_fatal_failure_ends_the_engine_for_everybody() -> None:
    model = FakeModel(max_rows=1)
    async with started(model) as engine:
        results = await asyncio.gather(
            *(tokens_of(engine, request(prompt)) for prompt in ([FATAL_POISON], [11], [12])), return_exceptions=True
        )
        assert [type(result) for result in results] == [EngineUnavailable] * 3
        await eventually(lambda: not engine.is_alive())
        assert engine.status().state == "dead"
        assert is_idle(engine)
        with pytest.raises(EngineUnavailable):
            await engine.generate(request([11]))


# Start and stop


async def test_states_from_start_to_stop() -> None:
    model = FakeModel()
    engine = TransformersEngine("t", CONFIG, load=lambda config: model)
    assert (engine.status().state, engine.is_alive()) == ("starting", False)
    with pytest.raises(EngineUnavailable):
        await engine.generate(request([11]))
    await engine.start()
    assert (engine.status().state, engine.is_alive(), engine.dtype) == ("ready", True, "float32")
    assert engine.status().seconds_since_step is None
    await engine.generate(request([11]))
    age = engine.status().seconds_since_step
    assert age is not None
    assert age < 5
    await engine.stop()
    await engine.stop()
    assert (engine.status().state, engine.is_alive()) == ("dead", False)


async def test_stop_ends_the_thread_and_tells_those_who_wait() -> None:
    model = FakeModel(max_rows=1)
    model.gate.clear()
    async with started(model) as engine:
        tasks = [asyncio.create_task(tokens_of(engine, request([11], max_tokens=80))) for _ in range(3)]
        await eventually(lambda: (engine.status().running, engine.status().waiting) == (1, 2))
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        model.gate.set()
        await stopping
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [EngineUnavailable] * 3
    assert not [thread for thread in threading.enumerate() if thread.name == "transformers-t"]


async def test_failed_load_is_a_startup_error_and_leaves_no_thread() -> None:
    def load(config: TransformersConfig) -> FakeModel:
        raise StartupError("the weights are truncated")

    engine = TransformersEngine("t", CONFIG, load=load)
    with pytest.raises(StartupError, match="truncated"):
        await engine.start()
    assert not engine.is_alive()
    await engine.stop()
