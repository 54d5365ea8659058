"""The engine over a model of a few lines: batching, streaming, cancelling, failing, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from llm_model.engines import transformers_worker
from llm_model.engines.base import Engine, GenerationRequest, Sample
from llm_model.engines.transformers_engine import TransformersConfig, TransformersEngine
from llm_model.errors import EngineUnavailable, GenerationFailed, InvalidArgument, StartupError
from llm_model.parameters import SamplingParameters
from tests.fakes.decoding_model import (
    EOS,
    FATAL_POISON,
    POISON,
    FakeModel,
    Rule,
    continuation,
    count_up,
    eventually,
    mix,
)

CONFIG = TransformersConfig(model_dir="unused", dtype="auto", max_model_len=100)
PROMPTS = [[11], [12, 13, 14, 15, 16, 17], [18, 19], [20, 21, 22], [23, 24, 25, 26, 27, 28, 29, 30, 31]]


@contextlib.asynccontextmanager
async def started(model: FakeModel) -> AsyncGenerator[TransformersEngine, None]:
    engine = TransformersEngine("t", CONFIG, load=lambda config: model)
    await engine.start()
    try:
        yield engine
    finally:
        model.gate.set()
        await engine.stop()


def request(prompt: Sequence[int], detokenize: bool = False, priority: int = 0, **params: Any) -> GenerationRequest:
    parameters = SamplingParameters(**{"temperature": 0.0, "max_tokens": 8, **params})
    return GenerationRequest("r", list(prompt), parameters, detokenize, priority)


async def tokens_of(engine: Engine, wanted: GenerationRequest) -> list[int]:
    return (await engine.generate(wanted))[0].token_ids


def is_idle(engine: TransformersEngine) -> bool:
    status = engine.status()
    return (status.running, status.waiting, status.outstanding_tokens) == (0, 0, 0)


# Batching


async def test_batch_gives_each_prompt_what_it_gets_alone() -> None:
    model = FakeModel(max_rows=4)
    lengths = [7, 2, 12, 1, 5]
    async with started(model) as engine:
        requests = [request(prompt, max_tokens=n) for prompt, n in zip(PROMPTS, lengths, strict=True)]
        together = await asyncio.gather(*(tokens_of(engine, wanted) for wanted in requests))
        alone = [await tokens_of(engine, wanted) for wanted in requests]
    assert together == alone == [continuation(prompt, n) for prompt, n in zip(PROMPTS, lengths, strict=True)]
    assert model.prefills[:2] == [(4, 6), (1, 9)]  # four rows together, the fifth when they had ended


async def test_penalized_batch_gives_each_prompt_what_it_gets_alone() -> None:
    lengths = [7, 2, 12, 1, 5]  # the rows behind those that end move up, and their counts with them
    async with started(FakeModel()) as engine:
        requests = [
            request(prompt, max_tokens=n, repetition_penalty=2.0, frequency_penalty=0.5)
            for prompt, n in zip(PROMPTS, lengths, strict=True)
        ]
        together = await asyncio.gather(*(tokens_of(engine, wanted) for wanted in requests))
        assert together == [await tokens_of(engine, wanted) for wanted in requests]


async def test_equal_prompts_are_read_once() -> None:
    model = FakeModel()
    async with started(model) as engine:
        results = await asyncio.gather(*(tokens_of(engine, request([11, 12])) for _ in range(3)))
    assert results == [continuation([11, 12], 8)] * 3
    assert model.prefills == [(1, 2)]


async def test_burst_larger_than_a_batch_is_answered_in_full() -> None:
    prompts = [[10 + number % 30, 11 + number % 7] for number in range(50)]
    async with started(FakeModel(max_rows=8)) as engine:
        results = await asyncio.gather(*(tokens_of(engine, request(prompt)) for prompt in prompts))
        assert is_idle(engine)
    assert results == [continuation(prompt, 8) for prompt in prompts]


@pytest.mark.parametrize("params", [{}, {"repetition_penalty": 2.0}, {"temperature": 1.0, "top_k": 20, "seed": 4}])
async def test_waiting_prompts_join_a_long_completion(monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]) -> None:
    monkeypatch.setattr(transformers_worker, "_REGROUP_STEPS", 5)
    model = FakeModel()
    long_request = request([11], max_tokens=60, ignore_eos=True, **params)
    ended: list[str] = []

    async def run(name: str, wanted: GenerationRequest) -> list[int]:
        tokens = await tokens_of(engine, wanted)
        ended.append(name)
        return tokens

    async with started(model) as engine:
        alone = await tokens_of(engine, long_request)
        model.gate.clear()
        long = asyncio.create_task(run("long", long_request))
        await eventually(lambda: engine.status().running == 1)
        short = asyncio.create_task(run("short", request([30, 31], max_tokens=3)))
        await eventually(lambda: engine.status().waiting == 1)
        model.gate.set()
        assert await long == alone
        assert await short == continuation([30, 31], 3)
    assert ended == ["short", "long"]


async def test_penalties_do_not_count_the_padding() -> None:
    # Token 0 pads, and is what the rule wants: once it counts as seen, 6 / 2 is less than what the others have.
    short, long = [11], [12, 13, 14, 15, 16, 17]
    params: dict[str, Any] = {"repetition_penalty": 2.0, "max_tokens": 6}

    def always_zero(sequence: Sequence[int]) -> int:
        return 0

    async with started(FakeModel(always_zero)) as engine:
        alone = await tokens_of(engine, request(short, **params))
        together = await asyncio.gather(*(tokens_of(engine, request(prompt, **params)) for prompt in (short, long)))
    assert together[0] == alone
    assert alone[0] == 0  # a counted padding would have penalized it from the start


async def test_penalized_row_leaves_its_neighbours_alone() -> None:
    async with started(FakeModel()) as engine:
        plain, penalized = await asyncio.gather(
            tokens_of(engine, request([11], max_tokens=20)),
            tokens_of(engine, request([11], max_tokens=20, repetition_penalty=2.0, frequency_penalty=2.0)),
        )
    assert plain == continuation([11], 20)
    assert penalized != plain


# Samples and their ends


async def test_samples_are_ordered_and_repeat_with_the_seed() -> None:
    wanted = request([11], n=6, temperature=2.0, top_k=30, seed=5, max_tokens=10)
    async with started(FakeModel(max_rows=4)) as engine:
        first, second = await engine.generate(wanted), await engine.generate(wanted)
        third_alone = await tokens_of(engine, request([11], temperature=2.0, top_k=30, seed=7, max_tokens=10))
    assert [sample.index for sample in first] == list(range(6))
    assert [sample.token_ids for sample in first] == [sample.token_ids for sample in second]
    assert len({tuple(sample.token_ids) for sample in first}) > 1
    assert first[2].token_ids == third_alone  # sample i has the seed of the request plus i, as in vLLM


async def test_completion_ends_at_the_models_length() -> None:
    async with started(FakeModel(max_model_len=10)) as engine:
        sample = (await engine.generate(request([11] * 6, max_tokens=50)))[0]
    assert (len(sample.token_ids), sample.finish_reason) == (4, "length")


async def test_min_tokens_makes_end_tokens_impossible() -> None:
    async with started(FakeModel(lambda sequence: EOS)) as engine:
        at_once = (await engine.generate(request([11])))[0]
        delayed = (await engine.generate(request([11], min_tokens=3)))[0]
    assert at_once.token_ids == [EOS]
    assert EOS not in delayed.token_ids[:3]
    assert delayed.token_ids[3:] == [EOS]


async def test_stop_token_outside_the_vocabulary_is_harmless() -> None:
    async with started(FakeModel()) as engine:
        assert await tokens_of(engine, request([11], stop_token_ids=(10**6,), min_tokens=3)) == continuation([11], 8)


async def test_logprobs_name_the_chosen_token_and_the_likeliest() -> None:
    async with started(FakeModel(count_up)) as engine:
        sample = (await engine.generate(request([10], detokenize=True, max_tokens=2, logprobs=2)))[0]
        plain = (await engine.generate(request([10], max_tokens=2)))[0]
    assert sample.logprobs is not None
    assert [list(entry) for entry in sample.logprobs] == [[11, 0], [12, 0]]
    assert sample.logprobs[0][11]["rank"] == 1
    assert sample.logprobs[0][11]["decoded_token"] == "B"
    chosen = [float(str(entry[token]["logprob"])) for entry, token in zip(sample.logprobs, [11, 12], strict=True)]
    assert sample.cumulative_logprob == pytest.approx(sum(chosen))
    assert (plain.logprobs, plain.cumulative_logprob) == (None, None)


@pytest.mark.parametrize("prompt", [[], [11] * 100, [-1], [64]])
async def test_prompt_that_the_model_cannot_take_is_refused(prompt: list[int]) -> None:
    async with started(FakeModel()) as engine:
        with pytest.raises(InvalidArgument):
            await engine.generate(request(prompt))
        assert is_idle(engine)


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


def test_the_fake_notices_wrong_padding() -> None:
    """The tests above stand on this: the rule depends on every token, so a wrong mask or order shows."""
    rules: list[Rule] = [mix]
    assert all(rule([0, 11, 12]) != rule([11, 12]) != rule([12, 11]) for rule in rules)
