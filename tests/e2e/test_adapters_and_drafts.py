"""LoRA adapters and guessed tokens through the whole service: chosen by the caller, and counted in Triton's metrics."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import Stacks
from tests.e2e.stack import Stack
from tests.e2e.triton_client import Answer, infer, strings
from tests.integration.model.lora import write_adapter

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

QUESTION = json.dumps([{"role": "user", "content": "什么是线程块？"}], ensure_ascii=False)
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"


@pytest.fixture
def tuned(stacks: Stacks, course_qa_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The course's model with an adapter that changes nothing and one that changes all; tokens are guessed too."""
    folder = tmp_path_factory.getbasetemp() / "adapters"
    if not folder.exists():
        folder.mkdir()
        for name, scale in (("nothing", 0.0), ("loud", 20.0)):
            write_adapter(folder / name, course_qa_model, scale)
    modules = {name: str(folder / name) for name in ("nothing", "loud")}
    settings = {
        "MODEL_DIR": str(course_qa_model),
        "LORA_MODULES": json.dumps(modules),
        "ENABLE_SPECULATIVE_DECODING": "1",
        "SPEC_METHOD": "ngram",
    }
    return stacks.get("adapters", settings)


def ask(stack: Stack, *adapters: str | None, max_tokens: int = 24) -> Answer:
    """The same question once for each adapter, in one request."""
    each = [{"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "lora_name": name} for name in adapters]
    inputs = [strings("messages", [QUESTION] * len(adapters))]
    return infer(stack.grpc_address, [*inputs, strings("sampling_parameters", list(map(json.dumps, each)))])


def test_each_row_of_a_batch_is_answered_by_its_adapter(tuned: Stack) -> None:
    answer = ask(tuned, None, "nothing", "loud", None)
    plain, nothing, loud, again = (answer.joined(row) for row in range(4))
    assert plain == nothing == again
    assert plain
    assert loud != plain


def test_an_unknown_adapter_costs_its_row_alone(tuned: Stack) -> None:
    answer = ask(tuned, None, "quiet")
    assert answer.joined(0)
    (error,) = [
        json.loads(error)
        for response in answer.responses
        for error, index in zip(response["error"], response["index"], strict=True)
        if index == 1
    ]
    assert error["code"] == "INVALID_ARG"
    assert "quiet" in error["message"]
    assert "nothing" in error["message"], "what there is"


def accepted(stack: Stack) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports.metrics}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return sum(float(value) for value in re.findall(rf"^{ACCEPTED}{{[^}}]*}} (\S+)$", text, re.MULTILINE))


def test_guessed_tokens_are_accepted_and_counted(tuned: Stack) -> None:
    before = accepted(tuned)
    ask(tuned, None, max_tokens=400)  # far beyond the answer's end the model repeats itself, which is easily guessed
    tuned.wait_for(lambda: accepted(tuned) > before, 10, "counting the accepted guesses")
