"""The transformers engine with a real model: reference answers, equal answers in any batch, streaming, stop strings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from transformers import AutoTokenizer

from llm_model.engines.base import GenerationRequest, Sample
from llm_model.engines.transformers_engine import TransformersConfig, TransformersEngine
from llm_model.parameters import SamplingParameters
from tests.fakes.decoding_model import eventually

pytestmark = pytest.mark.engine

SYSTEM_PROMPT = (
    "你是《大规模并行处理器程序设计》课程的答题助手。只输出答案正文：直接给出定义、关键术语和结论，用词与教材一致；"
    "不复述题目，不写思考过程、寒暄或举例。题目要求代码时，只给最短可用的核心代码。"
)
QUESTIONS = 40

MakeRequest = Callable[..., GenerationRequest]


@pytest.fixture(scope="module")
def tokenizer(course_qa_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(course_qa_model, local_files_only=True)


@pytest.fixture(scope="module")
def questions(shared_dir: Path, course_qa_model: Path) -> list[dict[str, str]]:
    lines = (shared_dir / "data" / "basic_qa.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][:QUESTIONS]


@pytest.fixture
def make_request(tokenizer: Any) -> MakeRequest:
    def make(question: str, detokenize: bool = False, **params: Any) -> GenerationRequest:
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        parameters = SamplingParameters(**{"temperature": 0.0, "max_tokens": 64, **params})
        return GenerationRequest("r", token_ids, parameters, detokenize)

    return make


@pytest_asyncio.fixture
async def engine(course_qa_model: Path) -> AsyncGenerator[TransformersEngine, None]:
    engine = TransformersEngine("course-qa", TransformersConfig(str(course_qa_model), "auto", 1024, device="cpu"))
    await engine.start()
    yield engine
    await engine.stop()


async def run_all(engine: TransformersEngine, requests: Sequence[GenerationRequest]) -> list[Sample]:
    return [samples[0] for samples in await asyncio.gather(*map(engine.generate, requests))]


async def test_answers_are_the_reference_answers(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    samples = await run_all(engine, [make_request(item["prompt"], detokenize=True) for item in questions])
    equal = [sample.text == item["reference"] for sample, item in zip(samples, questions, strict=True)]
    assert all(equal[:3])
    assert sum(equal) >= 0.9 * QUESTIONS  # what the model has learnt by heart
    assert {sample.finish_reason for sample in samples} == {"stop"}


@pytest.mark.parametrize("params", [{}, {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "ignore_eos": True}])
async def test_batch_answers_as_single_requests_do(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest, params: dict[str, Any]
) -> None:
    requests = [
        make_request(item["prompt"], **params, max_tokens=10 + 7 * (number % 6))
        for number, item in enumerate(questions)
    ]
    together = await run_all(engine, requests)
    alone = [(await engine.generate(request))[0] for request in requests]
    assert together == alone
    assert len({len(request.token_ids) for request in requests}) > 5  # there was padding


async def test_stream_joins_to_the_answer(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    request = make_request(questions[0]["prompt"], detokenize=True)
    pieces = [sample async for samples in engine.stream(request) for sample in samples]
    assert "".join(piece.text or "" for piece in pieces) == questions[0]["reference"]
    assert not any("\ufffd" in (piece.text or "") for piece in pieces)
    assert len(pieces) > 3
    assert pieces[-1].finish_reason == "stop"


async def test_stop_string_cuts_the_answer(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    reference = questions[0]["reference"]
    stop = reference[10:13]
    request = make_request(questions[0]["prompt"], detokenize=True, stop=(stop,))
    sample = (await engine.generate(request))[0]
    streamed = [piece.text or "" async for samples in engine.stream(request) for piece in samples]
    assert (sample.text, sample.finish_reason, sample.stop_reason) == (reference[: reference.index(stop)], "stop", stop)
    assert "".join(streamed) == sample.text


async def test_samples_differ_and_repeat_with_their_seed(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    request = make_request(questions[0]["prompt"], n=4, temperature=1.5, seed=3, max_tokens=20)
    first = await engine.generate(request)
    beside_others, _ = await asyncio.gather(
        engine.generate(request), run_all(engine, [make_request(item["prompt"]) for item in questions[:8]])
    )
    assert [sample.token_ids for sample in first] == [sample.token_ids for sample in beside_others]
    assert len({tuple(sample.token_ids) for sample in first}) > 1


async def test_logprobs_of_a_greedy_answer_are_the_best(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    request = make_request(questions[0]["prompt"], detokenize=True, logprobs=2, max_tokens=12)
    sample = (await engine.generate(request))[0]
    assert sample.logprobs is not None
    assert len(sample.logprobs) == len(sample.token_ids) == 12
    chosen = [entry[token] for entry, token in zip(sample.logprobs, sample.token_ids, strict=True)]
    assert [entry["rank"] for entry in chosen] == [1] * 12
    assert sample.cumulative_logprob == pytest.approx(sum(float(str(entry["logprob"])) for entry in chosen))
    assert "".join(str(entry["decoded_token"]) for entry in chosen) == sample.text


async def test_cancelled_answer_leaves_the_batch(
    engine: TransformersEngine, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    task = asyncio.create_task(engine.generate(make_request(questions[0]["prompt"], max_tokens=900, ignore_eos=True)))
    await eventually(lambda: engine.status().seconds_since_step is not None and engine.status().running == 1)
    task.cancel()
    await eventually(lambda: engine.status().running == 0, timeout_s=2)
    assert engine.status().outstanding_tokens == 0
    sample = (await engine.generate(make_request(questions[1]["prompt"], detokenize=True)))[0]
    assert sample.text == questions[1]["reference"]


async def test_answer_ends_at_the_models_length(
    course_qa_model: Path, questions: list[dict[str, str]], make_request: MakeRequest
) -> None:
    request = make_request(questions[0]["prompt"], ignore_eos=True, max_tokens=900)
    length = len(request.token_ids) + 5
    engine = TransformersEngine("short", TransformersConfig(str(course_qa_model), "float32", length, device="cpu"))
    await engine.start()
    sample = (await engine.generate(request))[0]
    await engine.stop()
    assert (len(sample.token_ids), sample.finish_reason) == (5, "length")
