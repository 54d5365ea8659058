"""The echo engine keeps the promises of the engine interface, so that it can stand in for a model."""

from __future__ import annotations

import asyncio

import pytest

from llm_model.engines.base import GenerationRequest, Outcome
from llm_model.engines.echo import EchoEngine, InstantEchoEngine
from llm_model.parameters import SamplingParameters
from tests.unit.model.fake_engines import until


def spell(token_ids: list[int], skip_special_tokens: bool) -> str:
    """Token 0 is special, 1 is half a character that the next token completes."""
    shown = [f"<{i}>" for i in token_ids if i or not skip_special_tokens]
    return "".join(shown[: len(shown) - (token_ids[-1:] == [1])])


def prompt(tokens: list[int], *, detokenize: bool = False, max_tokens: int = 3, n: int = 1) -> GenerationRequest:
    return GenerationRequest("r", tokens, SamplingParameters(max_tokens=max_tokens, n=n), detokenize)


async def started(step_s: float = 0.0) -> EchoEngine:
    engine = EchoEngine("echo", spell, step_s)
    await engine.start()
    return engine


async def test_the_last_tokens_come_back() -> None:
    engine = await started()
    (sample,) = await engine.generate(prompt([5, 6, 7, 8]))
    assert (sample.token_ids, sample.text, sample.finish_reason) == ([6, 7, 8], None, "length")


async def test_every_sample_is_answered() -> None:
    engine = await started()
    samples = await engine.generate(prompt([5, 6], n=3))
    assert [(sample.index, sample.token_ids) for sample in samples] == [(0, [5, 6]), (1, [5, 6]), (2, [5, 6])]


async def test_text_comes_when_it_is_asked_for() -> None:
    engine = await started()
    (sample,) = await engine.generate(prompt([5, 0, 1, 7], detokenize=True, max_tokens=4))
    assert sample.text == "<5><1><7>"


async def test_the_pieces_of_a_stream_make_up_the_text() -> None:
    engine = await started()
    pieces = [piece async for (piece,) in engine.stream(prompt([5, 1, 7], detokenize=True))]
    assert [piece.text for piece in pieces] == ["<5>", "", "<1><7>"]
    assert [piece.token_ids for piece in pieces] == [[5], [1], [7]]
    assert [piece.finish_reason for piece in pieces] == [None, None, "length"]


async def test_what_runs_is_counted_until_it_is_cancelled() -> None:
    engine = await started(step_s=60.0)
    task = asyncio.ensure_future(engine.generate(prompt([5])))
    await until(lambda: engine.status().running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.status().running == 0


async def test_state_before_and_after() -> None:
    engine = EchoEngine("echo", spell)
    assert (engine.is_alive(), engine.status().state, engine.status().seconds_since_step) == (False, "dead", None)
    await engine.start()
    assert (engine.is_alive(), engine.status().state) == (True, "ready")
    assert engine.status().seconds_since_step is not None
    await engine.stop()
    await engine.stop()
    assert not engine.is_alive()


async def test_without_steps_a_prompt_has_ended_when_it_has_begun() -> None:
    engine = InstantEchoEngine("echo", spell)
    await engine.start()
    told: list[Outcome] = []
    engine.begin(prompt([5, 6, 7, 8]), told.append)
    engine.cancel("r")
    assert told == [await engine.generate(prompt([5, 6, 7, 8]))]
