"""vLLM behind the engine interface: one real engine on the course's model, started once for all tests."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_model.engines.base import GenerationRequest
from llm_model.engines.pool import EnginePool
from llm_model.engines.vllm_options import engine_options, installed_release, prepare_environment
from llm_model.errors import EngineUnavailable, GenerationFailed, InvalidArgument
from llm_model.generation import Generator
from llm_model.parameters import SamplingParameters, StructuredOutputs
from llm_model.rows import InferenceCall, Row
from llm_model.settings import ModelSettings
from llm_model.tokenization import Tokenization

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("default"),  # vLLM's imports and its children are not ours to keep free of warnings
]

MAX_MODEL_LEN = 512
CANCELLED_WITHIN_S = 2.0
QUESTION = json.dumps([{"role": "user", "content": "什么是线程束？"}]).encode()
GREEDY = SamplingParameters(max_tokens=24, temperature=0.0)


def settings_for(folder: Path) -> ModelSettings:
    environ = {"MODEL_DIR": str(folder), "VLLM_MAX_NUM_SEQS": "16"}
    return ModelSettings.from_env(environ)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(course_qa_model: Path) -> AsyncIterator[Any]:
    before = dict(os.environ)
    settings = settings_for(course_qa_model)
    prepare_environment(settings)  # before vLLM is imported
    from llm_model.engines.vllm_engine import VllmEngine, device

    found = device()
    assert found is not None
    started = VllmEngine("vllm-0", engine_options(settings, found, MAX_MODEL_LEN))
    try:
        await started.start()
        yield started
    finally:
        await started.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def tokenization(course_qa_model: Path) -> Tokenization:
    return Tokenization.load(str(course_qa_model), trust_remote_code=False)


@pytest.fixture(scope="module")
def generator(engine: Any, tokenization: Tokenization) -> Generator:
    return Generator(EnginePool([engine]), tokenization, MAX_MODEL_LEN)


@pytest.fixture(scope="module")
def prompt(tokenization: Tokenization) -> list[int]:
    text = tokenization.render_chat(json.loads(QUESTION))
    return tokenization.encode([text], add_special_tokens=False)[0]


def asked(prompt: list[int], request_id: str, *, detokenize: bool = False, **fields: Any) -> GenerationRequest:
    params = SamplingParameters(**{"max_tokens": 24, "temperature": 0.0, **fields})
    return GenerationRequest(request_id, prompt, params, detokenize)


async def rows(generator: Generator, params: SamplingParameters = GREEDY, count: int = 1, **flags: bool) -> list[Row]:
    call = InferenceCall("", [QUESTION] * count, True, [params] * count, **flags)
    return [row for group in [rows async for rows in generator.run(call)] for row in group]


async def until(condition: Callable[[], object], timeout_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.02)


async def test_the_engine_is_ready(engine: Any) -> None:
    assert engine.is_alive()
    assert engine.status().state == "ready"
    assert engine.dtype in ("bfloat16", "float16", "float32")


async def test_an_answer_has_tokens_and_no_text_unless_asked_for(engine: Any, prompt: list[int]) -> None:
    (sample,) = await engine.generate(asked(prompt, "plain"))
    assert sample.text is None
    assert 0 < len(sample.token_ids) <= 24
    assert sample.finish_reason in ("stop", "length")
    (worded,) = await engine.generate(asked(prompt, "worded", detokenize=True))
    assert worded.text
    assert worded.token_ids == sample.token_ids


async def test_the_ways_to_an_answer_agree(generator: Generator) -> None:
    (whole,) = await rows(generator)
    assert whole.text
    streamed = await rows(generator, stream=True)
    assert "".join(row.text for row in streamed) == whole.text
    assert [token for row in streamed for token in row.token_ids] == whole.token_ids
    assert [row.finish_reason for row in streamed if row.finish_reason] == [whole.finish_reason]
    many = await rows(generator, count=8)
    assert {row.text for row in many} == {whole.text}
    partial = await rows(generator, count=3, partial=True)
    assert sorted((row.index, row.text) for row in partial) == [(i, whole.text) for i in range(3)]


async def test_stop_token_ids_and_stop_strings_end_an_answer(engine: Any, prompt: list[int]) -> None:
    (whole,) = await engine.generate(asked(prompt, "whole", detokenize=True))
    third = whole.token_ids[2]
    (by_id,) = await engine.generate(asked(prompt, "by-id", stop_token_ids=(third,)))
    assert by_id.token_ids == whole.token_ids[: whole.token_ids.index(third) + 1]
    assert (by_id.finish_reason, by_id.stop_reason) == ("stop", third)
    character = whole.text[3]
    (by_text,) = await engine.generate(asked(prompt, "by-text", detokenize=True, stop=(character,)))
    assert by_text.text == whole.text[: whole.text.index(character)]
    assert (by_text.finish_reason, by_text.stop_reason) == ("stop", character)


async def test_samples_are_ordered_and_follow_their_seed(engine: Any, prompt: list[int]) -> None:
    drawn = [await engine.generate(asked(prompt, f"n{i}", n=3, temperature=1.0, seed=7)) for i in range(2)]
    assert [[sample.index for sample in samples] for samples in drawn] == [[0, 1, 2]] * 2
    assert drawn[0] == drawn[1]


async def test_log_probabilities_are_plain_data(engine: Any, prompt: list[int]) -> None:
    (sample,) = await engine.generate(asked(prompt, "logprobs", detokenize=True, logprobs=2))
    assert sample.logprobs is not None
    assert len(sample.logprobs) == len(sample.token_ids)
    for token_id, position in zip(sample.token_ids, sample.logprobs, strict=True):
        assert position[token_id]["rank"] == 1  # greedy
        assert set(position[token_id]) == {"logprob", "rank", "decoded_token"}
    assert sample.cumulative_logprob < 0


async def test_what_vllm_refuses_is_the_callers_fault(engine: Any, prompt: list[int]) -> None:
    with pytest.raises(InvalidArgument):
        await engine.generate(asked(prompt, "min-tokens", min_tokens=30))
    with pytest.raises(InvalidArgument):
        await engine.generate(asked([1] * (MAX_MODEL_LEN + 1), "too-long"))
    assert engine.is_alive()


@pytest.mark.skipif(() < installed_release() < (0, 19), reason="this vLLM makes something of such a schema")
async def test_what_vllm_gives_up_is_no_answer(engine: Any, prompt: list[int]) -> None:
    """A schema that refers to itself: vLLM takes the request on, and cannot compile its grammar."""
    request = asked(prompt, "given up", structured_outputs=StructuredOutputs(json='{"$ref": "#"}'))
    with pytest.raises(GenerationFailed, match="the engine failed on this prompt"):
        await engine.generate(request)
    with pytest.raises(GenerationFailed):
        _ = [piece async for piece in engine.stream(request)]
    assert engine.is_alive()


@pytest.mark.parametrize("flags", [{}, {"stream": True}])
async def test_an_answer_that_nobody_awaits_leaves_the_engine(
    generator: Generator, engine: Any, flags: dict[str, bool]
) -> None:
    endless = SamplingParameters(max_tokens=400, ignore_eos=True)
    reader = asyncio.ensure_future(rows(generator, endless, count=4, **flags))
    await until(lambda: engine.status().running == 4, 30)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await rows(generator, SamplingParameters(max_tokens=1))  # the figures are those of the latest step
    await until(lambda: engine.status().running == 0, CANCELLED_WITHIN_S)
    assert engine.status().seconds_since_step < 30


async def test_only_small_parameters_are_kept(engine: Any) -> None:
    from vllm.sampling_params import RequestOutputKind

    from llm_model.engines.vllm_engine import _sampling_params

    small = SamplingParameters(stop=("x",))
    large = SamplingParameters(structured_outputs=StructuredOutputs(json=json.dumps({"title": "x" * 5000})))
    for params, is_kept in ((small, True), (large, False)):
        first, second = (_sampling_params(params, True, RequestOutputKind.DELTA) for _ in range(2))
        assert (first is second) is is_kept
        assert str(first) == str(second)


async def test_an_unknown_architecture_is_no_case_for_vllm(engine: Any, tmp_path: Path) -> None:
    from llm_model.engines.vllm_engine import VERSION, unsupported_reason

    (tmp_path / "config.json").write_text('{"architectures": ["OddForCausalLM"]}', encoding="utf-8")
    assert unsupported_reason(str(tmp_path)) == f"vLLM {VERSION} does not support the architecture OddForCausalLM"


async def test_a_stopped_engine_refuses_and_stops_again(engine: Any, prompt: list[int]) -> None:  # last: it ends it
    await engine.stop()
    await engine.stop()
    assert not engine.is_alive()
    with pytest.raises(EngineUnavailable):
        await engine.generate(asked(prompt, "late"))
