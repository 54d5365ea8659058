"""Streams of the transformers engine, and callers that go away, over a model of a few lines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_model.engines.base import Engine, GenerationRequest, Sample
from tests.fakes.decoding_model import (
    FakeModel,
    continuation,
    count_up,
    eventually,
)
from tests.unit.model.transformers_running import is_idle, request, started, tokens_of

# Streams


async def collected(engine: Engine, wanted: GenerationRequest) -> list[Sample]:
    return [sample async for samples in engine.stream(wanted) for sample in samples]


@pytest.mark.parametrize("params", [{}, {"stop": "ST"}, {"stop": ("TUV", "XY"), "include_stop_str_in_output": True}])
async def test_stream_joins_to_the_unstreamed_completion(params: dict[str, Any]) -> None:
    wanted = request([25], detokenize=True, max_tokens=30, **params)
    async with started(FakeModel(count_up)) as engine:
        whole = (await engine.generate(wanted))[0]
        pieces = await collected(engine, wanted)
    assert "".join(piece.text or "" for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.token_ids] == whole.token_ids
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert (pieces[-1].finish_reason, pieces[-1].stop_reason) == (whole.finish_reason, whole.stop_reason)


async def test_first_piece_comes_before_the_completion_ends() -> None:
    model = FakeModel(count_up)
    async with started(model) as engine:
        stream = engine.stream(request([11], detokenize=True, max_tokens=80))
        first = await stream.__anext__()
        assert first[0].text
        assert first[0].finish_reason is None
        await stream.aclose()


async def test_slow_reader_gets_what_has_gathered_in_one_piece() -> None:
    model = FakeModel(count_up)
    async with started(model) as engine:
        stream = engine.stream(request([11], detokenize=True, max_tokens=30, logprobs=0))
        pieces = [(await stream.__anext__())[0]]
        await eventually(lambda: is_idle(engine))
        pieces += [sample async for samples in stream for sample in samples]
    assert len(pieces) <= 3
    assert [token for piece in pieces for token in piece.token_ids] == continuation([11], 30, count_up)
    assert sum(len(piece.logprobs or []) for piece in pieces) == 30


async def test_streamed_samples_keep_their_index() -> None:
    async with started(FakeModel()) as engine:
        wanted = request([11], detokenize=True, n=3, temperature=1.0, top_k=30, seed=1)
        whole = await engine.generate(wanted)
        pieces = await collected(engine, wanted)
    for sample in whole:
        assert "".join(piece.text or "" for piece in pieces if piece.index == sample.index) == sample.text


# Callers that go away


async def test_cancelling_frees_the_running_row_and_not_its_neighbour() -> None:
    model = FakeModel()
    model.gate.clear()
    async with started(model) as engine:
        gone = asyncio.create_task(tokens_of(engine, request([11], max_tokens=80)))
        stays = asyncio.create_task(tokens_of(engine, request([12, 13], max_tokens=9)))
        await eventually(lambda: engine.status().running == 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.gate.set()
        assert await stays == continuation([12, 13], 9)
        assert is_idle(engine)
    assert model.steps <= 10  # not the 80 of the cancelled one


async def test_cancelling_frees_waiting_rows_at_once() -> None:
    model = FakeModel(max_rows=1)
    model.gate.clear()
    async with started(model) as engine:
        first = asyncio.create_task(tokens_of(engine, request([11])))
        await eventually(lambda: engine.status().running == 1)
        second = asyncio.create_task(tokens_of(engine, request([12], n=3, temperature=1.0)))
        await eventually(lambda: engine.status().waiting == 3)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert engine.status().waiting == 0
        model.gate.set()
        assert await first == continuation([11], 8)


async def test_closing_a_stream_frees_its_row() -> None:
    model = FakeModel(max_model_len=10_000)
    async with started(model) as engine:
        stream = engine.stream(request([11], detokenize=True, max_tokens=9000))
        await stream.__anext__()
        await stream.aclose()
        await eventually(lambda: is_idle(engine))
    assert model.steps < 9000


async def test_single_prompt_goes_before_waiting_ones_of_a_batch() -> None:
    model = FakeModel(max_rows=1)
    model.gate.clear()
    ended: list[str] = []

    async def run(name: str, wanted: GenerationRequest) -> None:
        await engine.generate(wanted)
        ended.append(name)

    async with started(model) as engine:
        tasks = [asyncio.create_task(run(name, request([11], priority=1))) for name in ("first", "second", "third")]
        await eventually(lambda: engine.status().waiting == 2)
        tasks.append(asyncio.create_task(run("urgent", request([12], priority=0))))
        await eventually(lambda: engine.status().waiting == 3)
        model.gate.set()
        await asyncio.gather(*tasks)
    assert ended == ["first", "urgent", "second", "third"]
