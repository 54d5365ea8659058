"""The transformers engine over a model of a few lines: batches, samples and their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from llm_model.engines import transformers_worker
from llm_model.engines.base import GenerationRequest
from llm_model.errors import InvalidArgument
from tests.fakes.decoding_model import (
    EOS,
    FakeModel,
    Rule,
    continuation,
    count_up,
    eventually,
    mix,
)
from tests.unit.model.transformers_running import PROMPTS, is_idle, request, started, tokens_of

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


def test_the_fake_notices_wrong_padding() -> None:
    """The tests above stand on this: the rule depends on every token, so a wrong mask or order shows."""
    rules: list[Rule] = [mix]
    assert all(rule([0, 11, 12]) != rule([11, 12]) != rule([12, 11]) for rule in rules)
