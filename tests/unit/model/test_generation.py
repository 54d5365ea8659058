"""From a call to its rows: priorities, samples, one decoding for many rows, row errors, cancellation."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from llm_model import generation
from llm_model.adapters import Adapters
from llm_model.engines.base import GenerationRequest, Sample
from llm_model.engines.pool import EnginePool
from llm_model.errors import EngineUnavailable, InvalidArgument
from llm_model.generation import BATCH, SINGLE, Generator, visible_token_ids
from llm_model.parameters import DEFAULT, SamplingParameters
from llm_model.prompts import CHUNK, Prompt, PromptBuilder
from llm_model.rows import InferenceCall, OutputFlags
from llm_model.tokenization import Tokenization
from tests.unit.model.fake_engines import ScriptedEngine, echo
from tests.unit.model.generating import MAX_MODEL_LEN, CountingTokenization, call, groups, rows

# Order and form


@pytest.mark.parametrize("count", [1, 3, 200, 600])
async def test_rows_come_at_once_and_in_order(generator: Generator, count: int) -> None:
    texts = [f"text {number}" for number in range(count)]
    (found,) = await groups(generator, call(texts))
    assert [(row.index, row.text) for row in found] == list(enumerate(texts))
    assert {row.finish_reason for row in found} == {"length"}


async def test_the_order_is_the_calls_whatever_finishes_first(generator: Generator, engine: ScriptedEngine) -> None:
    others = asyncio.Event()

    async def first_comes_last(request: GenerationRequest) -> list[Sample]:
        if len(engine.requests) == 3:
            others.set()
        if request is engine.requests[0]:
            await others.wait()
            await asyncio.sleep(0)
        return await echo(request)

    engine.answer = first_comes_last
    (found,) = await groups(generator, call(["a", "b", "c"]))
    assert [(row.index, row.text) for row in found] == [(0, "a"), (1, "b"), (2, "c")]


async def test_the_engine_is_at_work_before_the_last_texts_are_tokenized(
    generator: Generator, engine: ScriptedEngine, counting: CountingTokenization
) -> None:
    begun: list[int] = []
    encode = counting.encode

    def noting(texts: Any, *, add_special_tokens: bool) -> list[list[int]]:
        begun.append(len(engine.requests))
        return encode(texts, add_special_tokens=add_special_tokens)

    counting.encode = noting  # type: ignore[method-assign]
    await rows(generator, call(["text"] * (2 * CHUNK + 1)))
    first, second, third = begun
    assert first == 0 < second <= third <= 2 * CHUNK


async def test_one_chunk_is_tokenized_ahead_of_the_one_that_is_worked_on(counting: CountingTokenization) -> None:
    tokenized: list[str] = []
    encode = counting.encode

    def noting(texts: Any, *, add_special_tokens: bool) -> list[list[int]]:
        tokenized.append(texts[0])
        return encode(texts, add_special_tokens=add_special_tokens)

    counting.encode = noting  # type: ignore[method-assign]
    chunks = PromptBuilder(counting, MAX_MODEL_LEN, Adapters()).build(call([f"{place}" for place in range(4 * CHUNK)]))
    for number in (1, 2, 3):
        await anext(chunks)
        await asyncio.sleep(0.05)
        assert len(tokenized) == number + 1
    await chunks.aclose()
    assert tokenized == [str(number * CHUNK) for number in range(4)]
    assert len(asyncio.all_tasks()) == 1


async def test_rows_count_their_tokens(generator: Generator, tokenization: Tokenization) -> None:
    (ids,) = tokenization.encode(["hello"], add_special_tokens=True)
    (row,) = await rows(generator, call(["hello"], SamplingParameters(max_tokens=2)))
    assert (row.num_input_tokens, row.num_output_tokens, row.token_ids) == (len(ids), 2, ids[-2:])


async def test_the_prompt_goes_before_the_completion_when_asked_for(generator: Generator) -> None:
    (row,) = await rows(generator, call(["hello "], echo_input=True))
    assert row.text == "hello hello "


async def test_a_chat_is_rendered(generator: Generator, engine: ScriptedEngine) -> None:
    one = InferenceCall("", [b'[{"role":"user","content":"hi"}]'], True, [SamplingParameters(max_tokens=100)])
    (row,) = await rows(generator, one)
    assert row.text == "user\nhi\nassistant\n"  # its special tokens are skipped
    shown = InferenceCall("", one.inputs, True, [SamplingParameters(max_tokens=100, skip_special_tokens=False)])
    (row,) = await rows(generator, shown)
    assert row.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


async def test_only_plain_texts_get_the_tokenizers_own_special_tokens(tokenizer: Any, engine: ScriptedEngine) -> None:
    from tokenizers.processors import TemplateProcessing

    with_start = copy.deepcopy(tokenizer)  # a chat template writes the start token itself
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", start)])
    with_start.backend_tokenizer.post_processor = processor
    generator = Generator(EnginePool([engine]), Tokenization(with_start), MAX_MODEL_LEN)
    await rows(generator, call(["a"]))
    await rows(generator, InferenceCall("", [b'[{"role":"user","content":"a"}]'], True, [DEFAULT]))
    assert [asked.token_ids.count(start) for asked in engine.requests] == [1, 0]


async def test_token_ids_are_taken_as_they_are(
    generator: Generator, engine: ScriptedEngine, tokenization: Tokenization
) -> None:
    (ids,) = tokenization.encode(["ab<|im_end|>"], add_special_tokens=False)
    (row,) = await rows(generator, call([str(ids)], is_token_ids=True, echo_input=True))
    assert engine.requests[0].token_ids == row.token_ids == ids
    assert (row.text, row.num_input_tokens) == ("ab<|im_end|>ab", len(ids))


@pytest.mark.parametrize("bad", ["", "[]", "{", "5", '["5"]', "[5.0]", "[true]", "[-1]", "[100000]", "[[5]]", "null"])
async def test_token_ids_that_are_none_cost_their_row_only(generator: Generator, bad: str) -> None:
    found = await rows(generator, call(["[70]", bad, "[71]"], is_token_ids=True))
    assert [row.error.code if row.error else None for row in found] == [None, "INVALID_ARG", None]
    assert found[1].error is not None
    assert "text_input" in found[1].error.message


# What the engine is asked for


@pytest.mark.parametrize("flags", [{}, {"partial": True}, {"stream": True}])
@pytest.mark.parametrize("count, priority", [(1, SINGLE), (2, BATCH)])
async def test_single_prompts_go_before_those_of_a_batch(
    generator: Generator, engine: ScriptedEngine, flags: dict[str, bool], count: int, priority: int
) -> None:
    await groups(generator, call(["a"] * count, **flags))
    assert [asked.priority for asked in engine.requests] == [priority] * count
    assert SINGLE < BATCH


async def test_engine_request_ids_are_distinct(generator: Generator, engine: ScriptedEngine) -> None:
    await groups(generator, InferenceCall("same", [b"a", b"a"], False, [DEFAULT, DEFAULT]))
    await groups(generator, InferenceCall("same", [b"a"], False, [DEFAULT]))
    ids = {asked.request_id for asked in engine.requests}
    assert len(ids) == 3
    assert not any("same" in request_id for request_id in ids)


@pytest.mark.parametrize(
    "params, stream, detokenizes",
    [
        ({}, False, False),
        ({}, True, True),
        ({"stop": "x"}, False, True),
        ({"stop": ("<|im_end|>", "x")}, False, True),
        ({"stop": "<|im_end|>"}, False, False),  # a single special token: compared by its id
        ({"stop": ()}, False, False),
        ({"stop_token_ids": (3,)}, False, False),
        ({"logprobs": 0}, False, True),
    ],
)
async def test_the_engine_makes_text_only_where_it_must(
    generator: Generator, engine: ScriptedEngine, params: dict[str, Any], stream: bool, detokenizes: bool
) -> None:
    await groups(generator, call(["a", "b"], SamplingParameters(**params), stream=stream))
    assert [asked.detokenize for asked in engine.requests] == [detokenizes] * 2


async def test_the_engine_makes_text_where_that_depends_on_the_prompt(
    generator: Generator, engine: ScriptedEngine, counting: CountingTokenization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "needs_context", True)
    await groups(generator, call(["a"]))
    assert [asked.detokenize for asked in engine.requests] == [True]


async def test_stop_strings_are_looked_at_once_a_call_and_not_kept(tokenization: Tokenization) -> None:
    builder = PromptBuilder(tokenization, MAX_MODEL_LEN, Adapters())
    params = SamplingParameters(stop=tuple(f"end {number}" for number in range(10)))
    made = [
        item.params
        for _ in range(2)
        async for chunk in builder.build(call(["a"] * (CHUNK + 1), params))
        for item in chunk
        if isinstance(item, Prompt)
    ]
    assert len(made) == 2 * (CHUNK + 1)
    first, second = made[0], made[-1]
    assert {id(item) for item in made} == {id(first), id(second)}
    assert (first == second == params, first is second) == (True, False)


async def test_stop_strings_that_are_special_tokens_become_ids(
    generator: Generator, engine: ScriptedEngine, tokenization: Tokenization
) -> None:
    params = SamplingParameters(stop=("<|im_end|>", "END", "<|endoftext|>"), stop_token_ids=(9,))
    await groups(generator, call(["a"], params))
    (asked,) = engine.requests
    special = (tokenization.special_token_id("<|im_end|>"), tokenization.special_token_id("<|endoftext|>"))
    assert (asked.params.stop, asked.params.stop_token_ids) == (("END",), (9, *special))


async def test_rows_without_text_are_decoded_together(generator: Generator, counting: CountingTokenization) -> None:
    await groups(generator, call(["a"] * 100))
    assert counting.decodings == [100]
    counting.decodings.clear()
    showing = SamplingParameters(skip_special_tokens=False)
    await groups(generator, call(["a", "b", "c"], [DEFAULT, showing, DEFAULT]))
    assert sorted(counting.decodings) == [1, 2]


async def test_text_of_the_engine_is_taken_as_it_is(
    generator: Generator, engine: ScriptedEngine, counting: CountingTokenization
) -> None:
    async def worded(request: GenerationRequest) -> list[Sample]:
        return [Sample(0, [1, 2], text="worded", finish_reason="stop")]

    engine.answer = worded
    (row,) = await rows(generator, call(["a"], SamplingParameters(stop="x")))
    assert (row.text, counting.decodings) == ("worded", [])


@pytest.mark.parametrize(
    "finish_reason, include, visible",
    [("stop", False, [1]), ("stop", True, [1, 2]), ("length", False, [1, 2]), (None, False, [1, 2])],
)
def test_a_stop_token_does_not_show(finish_reason: str | None, include: bool, visible: list[int]) -> None:
    params = SamplingParameters(include_stop_str_in_output=include)
    assert visible_token_ids(Sample(0, [1, 2], finish_reason=finish_reason), params) == visible
    assert visible_token_ids(Sample(0, [], finish_reason=finish_reason), params) == []


# Several samples


async def numbered(request: GenerationRequest) -> list[Sample]:
    """Sample i is the prompt's last token i + 1 times."""
    return [Sample(i, request.token_ids[-1:] * (i + 1), finish_reason="length") for i in range(request.params.n)]


@pytest.mark.parametrize("partial", [False, True])
async def test_the_index_counts_prompt_times_n_plus_sample(
    generator: Generator, engine: ScriptedEngine, partial: bool
) -> None:
    engine.answer = numbered
    found = await rows(generator, call(["a", "b"], SamplingParameters(n=3), partial=partial))
    assert sorted((row.index, row.text) for row in found) == list(enumerate(["a", "aa", "aaa", "b", "bb", "bbb"]))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_greedy_prompt_runs_once_whatever_n(generator: Generator, engine: ScriptedEngine, stream: bool) -> None:
    found = await rows(generator, call(["a", "b"], SamplingParameters(n=3, temperature=0), stream=stream))
    assert [asked.params.n for asked in engine.requests] == [1, 1]
    assert sorted(row.index for row in found) == list(range(6))
    assert len({id(row) for row in found}) == 6


@pytest.mark.parametrize("flags", [{}, {"partial": True}, {"stream": True}])
async def test_one_n_for_all_rows(generator: Generator, engine: ScriptedEngine, flags: dict[str, bool]) -> None:
    with pytest.raises(InvalidArgument, match=r"'n' has values \[1, 2\]. Allowed is one for all prompts"):
        await groups(generator, call(["a", "b"], [DEFAULT, SamplingParameters(n=2)], **flags))
    assert engine.requests == []


async def test_a_row_that_failed_has_n_rows(generator: Generator) -> None:
    found = await rows(generator, call(["a", "", "c"], SamplingParameters(n=2)))
    assert [row.index for row in found] == list(range(6))
    assert [row.error is not None for row in found] == [False, False, True, True, False, False]


# Streams of many rows


async def test_pieces_of_one_moment_come_together_and_each_row_once(
    generator: Generator, engine: ScriptedEngine
) -> None:
    moments = [asyncio.Event() for _ in range(3)]

    async def in_step(asked: GenerationRequest) -> Any:
        for place, moment in enumerate(moments):
            await moment.wait()
            yield [Sample(0, [place * 2], f"{place}", cumulative_logprob=-1.0 - place)]
            reason = "length" if place == 2 else None
            yield [Sample(0, [place * 2 + 1], "x", reason, cumulative_logprob=-1.5 - place)]

    engine.stream = in_step  # type: ignore[method-assign, assignment]
    stream = generator.run(call(["a"] * 20, stream=True))
    for place, moment in enumerate(moments):
        moment.set()
        for _ in range(50):
            await asyncio.sleep(0)  # all that is ready gets its turn before the next response is asked for
        found = [await stream.__anext__()]
        while sum(len(row.token_ids) for group in found for row in group) < 40:
            found.append(await stream.__anext__())
        assert len(found) <= 2
        for group in found:
            assert len({row.index for row in group}) == len(group)
        last = {row.index: row for group in found for row in group}
        assert {row.cumulative_logprob for row in last.values()} == {-1.5 - place}
    assert [group async for group in stream] == []


async def test_an_error_comes_after_the_pieces_before_it(generator: Generator, engine: ScriptedEngine) -> None:
    async def break_off(asked: GenerationRequest) -> Any:
        yield [Sample(0, [1], "so far")]
        raise EngineUnavailable("it died")

    engine.stream = break_off  # type: ignore[method-assign, assignment]
    found = await groups(generator, call(["a", "b"], stream=True))
    for index in (0, 1):
        rows_of_one = [row for group in found for row in group if row.index == index]
        assert [(row.text, row.error is not None) for row in rows_of_one] == [("so far", False), ("", True)]
    assert all(len({row.error is None for row in group}) == 1 for group in found)


async def test_a_prompt_that_cannot_fit_is_not_tokenized(tokenization: Tokenization) -> None:
    limit = int((MAX_MODEL_LEN - 1) * tokenization.most_characters_a_token)
    builder = PromptBuilder(tokenization, MAX_MODEL_LEN, Adapters())
    (made,) = [made async for made in builder.build(call(["a" * limit, "a" * (limit + 1)]))]
    told = [item.message for item in made if isinstance(item, InvalidArgument)]
    assert f"the prompt has {limit + 1} characters; 49 tokens are allowed, which hold at most {limit}" == told[1]
    assert "tokens; allowed are 1 to 49" in told[0]


@pytest.mark.parametrize("is_partial, sizes", [(True, [2, 2, 1]), (False, [5])])
async def test_samples_with_log_probabilities_come_apart(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, is_partial: bool, sizes: list[int]
) -> None:
    monkeypatch.setattr(generation, "_LOGPROB_TOKENS", 2)  # of samples of one
    params = SamplingParameters(n=5, max_tokens=3, logprobs=1, temperature=1.0)
    asked = call(["a"], params, partial=is_partial, flags=OutputFlags(logprobs=True))
    found = await groups(generator, asked)
    assert [len(group) for group in found] == sizes
    assert [row.index for group in found for row in group] == [0, 1, 2, 3, 4]
