"""The main job on real input: the course's questions through the course's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jieba
import pytest
from rouge_chinese import Rouge

from gateway.settings import DEFAULT_SYSTEM_PROMPT
from tests.e2e.stack import ROOT, Stack, read_jsonl
from tests.e2e.triton_client import infer, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

PARAMETERS = {"max_tokens": 64, "temperature": 0.0, "repetition_penalty": 1.05, "frequency_penalty": 0.1}


@pytest.fixture(scope="module")
def questions(shared_dir: Path | None) -> list[dict[str, Any]]:
    if shared_dir is None:
        pytest.skip("no shared test material: set SHARED_DIR or put `shared` beside the project")
    return read_jsonl(shared_dir / "data" / "basic_qa.jsonl")


@pytest.fixture
def batch_answers(course_qa: Stack, questions: list[dict[str, Any]]) -> list[str]:
    """All questions as one request, as the evaluator's batch mode sends them."""
    answers: list[str] = course_qa.predict([question["prompt"] for question in questions])
    return answers


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 over jieba words; white space is normalised, as rouge-chinese counts blank lines as words."""
    words = [" ".join(jieba.lcut(" ".join(text.split()))) for text in (answer or "空", reference)]
    return float(Rouge().get_scores(*words)[0]["rouge-l"]["f"])


def test_batch_scores_like_the_reference(batch_answers: list[str], questions: list[dict[str, Any]]) -> None:
    scores = [rouge_l(a, q["reference"]) for a, q in zip(batch_answers, questions, strict=True)]
    assert sum(scores) / len(scores) >= 0.99


def test_every_answer_belongs_to_its_question(batch_answers: list[str], questions: list[dict[str, Any]]) -> None:
    """Order: each answer is nearer to its own reference than to its neighbour's."""
    for place, answer in enumerate(batch_answers):
        own = rouge_l(answer, questions[place]["reference"])
        other = rouge_l(answer, questions[(place + 1) % len(questions)]["reference"])
        assert own > other, questions[place]["prompt"]


def test_single_requests_give_the_same_texts(
    course_qa: Stack, batch_answers: list[str], questions: list[dict[str, Any]]
) -> None:
    with ThreadPoolExecutor(8) as clients:
        singles = list(clients.map(course_qa.predict, [question["prompt"] for question in questions]))
    assert singles == batch_answers


def test_texts_equal_those_of_vllm_offline(
    course_qa: Stack, course_qa_model: Path, questions: list[dict[str, Any]]
) -> None:
    chats = [
        [{"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, {"role": "user", "content": question["prompt"]}]
        for question in questions
    ]
    answer = infer(
        course_qa.grpc_address,
        [
            strings("messages", [json.dumps(chat, ensure_ascii=False) for chat in chats]),
            strings("sampling_parameters", [json.dumps({**PARAMETERS, "stop": ["<|im_end|>", "<|endoftext|>"]})]),
        ],
    )
    assert answer.error is None
    served = [answer.joined(place) for place in range(len(chats))]
    assert served == offline_texts(course_qa_model, course_qa.info(), chats)


def offline_texts(model: Path, info: dict[str, Any], chats: list[list[dict[str, str]]]) -> list[str]:
    """What ``LLM.chat`` makes of the same conversations with the same model, type and parameters."""
    job = {
        "model": str(model),
        "chats": chats,
        "params": PARAMETERS,  # the model's own end-of-sequence tokens are the two stop strings of the service
        "options": {"dtype": info["dtype"], "max_model_len": info["max_model_len"], "enforce_eager": True},
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("offline_vllm.py"))],
        cwd=ROOT,
        input=json.dumps(job),
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-4000:]
    texts: list[str] = json.loads(results[0].removeprefix("RESULT "))
    return texts
