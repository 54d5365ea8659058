"""What goes wrong in a generation, and what is cancelled: by rows, by calls, by readers that go away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_model.engines.base import GenerationRequest, Sample
from llm_model.errors import EngineUnavailable, GenerationFailed, InvalidArgument, ModelError
from llm_model.generation import Generator
from llm_model.parameters import DEFAULT
from llm_model.rows import InferenceCall
from llm_model.tokenization import Tokenization
from tests.unit.model.fake_engines import ScriptedEngine, echo, for_ever, raising, until
from tests.unit.model.generating import MAX_MODEL_LEN, call, errors, groups, rows

# Errors

BAD_INPUTS = [b"\xff", b""]
BAD_CHATS = [b"{", b"[]", b"{}", b"[1]", b'[{"role":"user"}]', b'[{"role":"user","content":1}]', b'["' + b"[" * 9999]
BAD_CHATS += [b'[{"role":"user","content":"\\ud800"}]', b"null", b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("is_chat, bad", [*((False, b) for b in BAD_INPUTS), *((True, b) for b in BAD_CHATS)], ids=repr)
@pytest.mark.parametrize("flags", [{}, {"partial": True}, {"stream": True}])
async def test_one_bad_input_costs_its_row_only(
    generator: Generator, is_chat: bool, bad: bytes, flags: dict[str, bool]
) -> None:
    good = b'[{"role":"user","content":"x"}]' if is_chat else b"x"
    found = await rows(generator, InferenceCall("", [good, bad, good], is_chat, [DEFAULT] * 3, **flags))
    assert [row.error.code for row in found if row.error] == ["INVALID_ARG"]
    (failed,) = (row for row in found if row.error)
    assert (failed.index, failed.text, failed.finish_reason) == (1, "", "error")
    assert {row.index for row in found} == {0, 1, 2}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_single_input_that_is_bad_fails_the_call(generator: Generator, stream: bool) -> None:
    with pytest.raises(InvalidArgument, match="'text_input' is an empty text"):
        await groups(generator, call([""], stream=stream))


async def test_a_single_partial_input_that_is_bad_is_a_row(generator: Generator) -> None:
    assert errors(await rows(generator, call([""], partial=True))) == [
        "INVALID_ARG: 'text_input' is an empty text; at least one character is needed"
    ]


async def test_the_prompts_length_is_checked_to_the_token(generator: Generator, tokenization: Tokenization) -> None:
    unit = "\u00e9"  # no merge was learnt for it: always the same number of tokens
    per_unit = len(tokenization.encode([unit], add_special_tokens=True)[0])
    assert (MAX_MODEL_LEN - 1 - 1) % per_unit == 0, "choose another length"
    fits = "a" + unit * ((MAX_MODEL_LEN - 2) // per_unit)
    found = await rows(generator, call([fits, fits + "a", fits * 50]))
    counts = [MAX_MODEL_LEN, 50 * (MAX_MODEL_LEN - 1)]
    assert errors(found) == [None] + [
        f"INVALID_ARG: the prompt has {count} tokens; allowed are 1 to {MAX_MODEL_LEN - 1}" for count in counts
    ]
    assert found[0].num_input_tokens == MAX_MODEL_LEN - 1


async def test_bad_parameters_of_one_row_cost_that_row_only(generator: Generator, engine: ScriptedEngine) -> None:
    found = await rows(generator, call(["a", "b"], [InvalidArgument("'n' is wrong"), DEFAULT]))
    assert errors(found) == ["INVALID_ARG: 'n' is wrong", None]
    assert len(engine.requests) == 1


FAILURES = [
    (GenerationFailed("no luck"), "INTERNAL: no luck"),
    (InvalidArgument("token 999"), "INVALID_ARG: token 999"),
    (EngineUnavailable("it died"), "UNAVAILABLE: it died"),
    (RuntimeError("/secret/path"), "INTERNAL: the model failed on this prompt"),
    (KeyError("x"), "INTERNAL: the model failed on this prompt"),
]


@pytest.mark.parametrize("failure, told", FAILURES, ids=repr)
@pytest.mark.parametrize("flags", [{}, {"partial": True}, {"stream": True}])
async def test_an_engines_failure_is_the_rows(
    generator: Generator, engine: ScriptedEngine, failure: Exception, told: str, flags: dict[str, bool]
) -> None:
    async def fail_on_long_prompts(request: GenerationRequest) -> list[Sample]:
        if len(request.token_ids) > 5:
            raise failure
        return await echo(request)

    engine.answer = fail_on_long_prompts
    found = await rows(generator, call(["a", "b " * 10, "c"], **flags))
    assert {row.index for row in found} == {0, 1, 2}
    assert [str(row.error) for row in found if row.error] == [told]


@pytest.mark.parametrize("failure, told", FAILURES, ids=repr)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_failure_on_a_single_prompt_is_the_calls(
    generator: Generator, engine: ScriptedEngine, failure: Exception, told: str, stream: bool
) -> None:
    engine.answer = raising(failure)
    with pytest.raises(ModelError) as caught:
        await groups(generator, call(["a"], stream=stream))
    assert str(caught.value) == told


async def test_a_rows_error_keeps_nothing_alive(generator: Generator, engine: ScriptedEngine) -> None:
    engine.answer = raising(GenerationFailed("x"))
    for row in await rows(generator, call(["a", "b", ""])):
        assert row.error is not None
        assert (row.error.__traceback__, row.error.__cause__, row.error.__context__) == (None, None, None)


# Partial


async def test_partial_groups_hold_what_is_finished_and_every_row_once(
    generator: Generator, engine: ScriptedEngine
) -> None:
    late = asyncio.Event()

    async def last_ones_wait(request: GenerationRequest) -> list[Sample]:
        if len(request.token_ids) > 5:
            await late.wait()
        return await echo(request)

    engine.answer = last_ones_wait
    texts = ["a", "b " * 10, "", "c", "d " * 10]
    seen: list[list[int]] = []
    async for group in generator.run(call(texts, partial=True)):
        seen.append([row.index for row in group])
        assert group, "an empty group says nothing"
        late.set()
    assert sorted(seen[0]) == [0, 2, 3]  # the first did not wait for the late ones
    assert sorted(index for group in seen for index in group) == [0, 1, 2, 3, 4]


async def test_a_large_group_is_sent_in_parts_of_which_the_caller_reads_some_while_others_are_made(
    generator: Generator,
) -> None:
    found = [[row.index for row in group] async for group in generator.run(call(["a"] * 300, partial=True))]
    assert max(map(len, found)) <= 128
    assert sorted(index for group in found for index in group) == list(range(300))


# Cancellation


@pytest.mark.parametrize("flags", [{}, {"partial": True}, {"stream": True}, {"partial": True, "row_key": "k1"}])
async def test_cancelling_the_reader_cancels_every_prompt(
    generator: Generator, engine: ScriptedEngine, flags: dict[str, Any]
) -> None:
    engine.answer = for_ever
    reader = asyncio.ensure_future(groups(generator, call(["a"] * 100, **flags)))
    await until(lambda: engine.running == 100)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await until(lambda: engine.running == 0)
    assert engine.aborted == 100


@pytest.mark.parametrize("flags", [{"partial": True}, {"stream": True}])
async def test_closing_the_answer_early_cancels_the_rest(
    generator: Generator, engine: ScriptedEngine, flags: dict[str, bool]
) -> None:
    async def short_ones_only(request: GenerationRequest) -> list[Sample]:
        return await (for_ever if len(request.token_ids) > 5 else echo)(request)

    engine.answer = short_ones_only
    answer = generator.run(call(["a", "b " * 10], **flags))
    assert [row.index for row in await answer.__anext__()] == [0]
    assert engine.running == 1
    await answer.aclose()
    await until(lambda: engine.running == 0)


async def test_the_event_loop_stays_free_while_a_large_batch_is_taken_in(
    generator: Generator, engine: ScriptedEngine
) -> None:
    turns = 0
    done = asyncio.Event()

    async def bystander() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(bystander())
    await groups(generator, call(["a"] * 2000))
    done.set()
    await other
    assert turns >= 2 * 2000 // 64
