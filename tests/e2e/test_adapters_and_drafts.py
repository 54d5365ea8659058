"""LoRA adapters and guessed tokens through the whole service: chosen by the caller, and counted in Triton's metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Stacks
from tests.e2e.stack import Stack
from tests.e2e.triton_client import Answer, infer, strings
from tests.integration.model.lora import write_adapter

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

CHAT = [{"role": "user", "content": "什么是线程块？"}]
QUESTIONS = ["什么是线程块？", "共享内存有什么用？", "写一个向量加法的 kernel。"]
SCALES = {"nothing": 0.0, "loud": 20.0}
ENOUGH = 100  # accepted guesses; what ran in the second before, the figures' delay, has far fewer
GUESSES = re.compile(r"^vllm:spec_decode_num_(\w+)_total\{[^}]*\} (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def adapters(course_qa_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An adapter that changes nothing and one that changes all."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: write_adapter(folder / name, course_qa_model, scale) for name, scale in SCALES.items()}


@pytest.fixture
def tuned(stacks: Stacks, course_qa_model: Path, adapters: dict[str, str]) -> Stack:
    """The course's model with the adapters; tokens are guessed too."""
    settings = {
        "MODEL_DIR": str(course_qa_model),
        "LORA_MODULES": json.dumps(adapters),
        "ENABLE_SPECULATIVE_DECODING": "1",
        "SPEC_METHOD": "ngram",
    }
    return stacks.get("adapters", settings)


def ask(stack: Stack, *names: str | None) -> Answer:
    """The same question once for each adapter, in one request."""
    rows = [{"max_tokens": 24, "temperature": 0, "ignore_eos": True, "lora_name": name} for name in names]
    chats = [json.dumps(CHAT, ensure_ascii=False)] * len(names)
    answer = infer(
        stack.grpc_address, [strings("messages", chats), strings("sampling_parameters", list(map(json.dumps, rows)))]
    )
    assert answer.error is None, answer.message
    return answer


def guesses(stack: Stack) -> dict[str, float]:
    """``drafts``, ``draft_tokens`` and ``accepted_tokens`` so far, from Triton's metrics."""
    text = stack.triton_metrics()
    return {name: float(value) for name, value in GUESSES.findall(text)}


def predicted(stack: Stack) -> list[list[str]]:
    """Greedy answers of ``/predict``: as it is, and so long that the model repeats itself, which is easily guessed."""
    greedy: dict[str, Any] = {"temperature": 0}
    long = {**greedy, "max_new_tokens": 200, "ignore_eos": True, "repetition_penalty": 1, "frequency_penalty": 0}
    return [stack.predict(QUESTIONS, **options) for options in (greedy, long)]


def test_each_row_of_a_batch_is_answered_by_its_adapter(tuned: Stack) -> None:
    plain, nothing, loud = (ask(tuned, name).joined() for name in (None, "nothing", "loud"))
    assert plain == nothing != ""
    assert loud != plain
    batch = ask(tuned, None, "nothing", "loud", None, "loud")
    assert [batch.joined(row) for row in range(5)] == [plain, nothing, loud, plain, loud]


def test_an_unknown_adapter_costs_its_row_alone(tuned: Stack) -> None:
    answer = ask(tuned, None, "quiet", "loud")
    (response,) = answer.responses
    before, error, after = (json.loads(error) if error else None for error in response["error"])
    assert before is after is None
    assert error["code"] == "INVALID_ARG"
    assert "'quiet'" in error["message"]
    assert all(name in error["message"] for name in SCALES), "what there is"
    assert answer.joined(1) == ""
    assert [answer.joined(0), answer.joined(2)] == [ask(tuned, name).joined() for name in (None, "loud")]


def test_over_http_the_model_itself_answers(tuned: Stack) -> None:
    """Adapters are shown there, and chosen on gRPC only: no model of OpenAI's API, no field of a request."""
    assert tuned.info()["adapters"] == list(SCALES)
    assert len(tuned.client.get(f"{tuned.url}/v1/models").json()["data"]) == 1
    for field, status in ({"lora_name": "loud"}, 400), ({"model": "loud"}, 404):
        reply = tuned.client.post(f"{tuned.url}/v1/chat/completions", json={"messages": CHAT, **field})
        assert reply.status_code == status, reply.text
        assert reply.json()["error"]["param"] in field
    own, other = (tuned.predict(QUESTIONS, temperature=0, **field) for field in ({}, {"lora_name": "loud"}))
    assert own == other


def test_guessed_tokens_are_counted_and_change_no_answer(tuned: Stack, request: pytest.FixtureRequest) -> None:
    before = guesses(tuned)
    answers, of_the_model = predicted(tuned), ask(tuned, None).joined()
    tuned.wait_for(
        lambda: guesses(tuned)["accepted_tokens"] > before["accepted_tokens"] + ENOUGH, 10, "counting the guesses"
    )
    after = guesses(tuned)
    assert after["drafts"] > before["drafts"]
    assert after["accepted_tokens"] <= after["draft_tokens"]
    plain: Stack = request.getfixturevalue("course_qa")  # now, not before: it takes the place of the other service
    assert predicted(plain) == answers
    assert ask(plain, None).joined() == of_the_model
    assert guesses(plain)["draft_tokens"] == 0
