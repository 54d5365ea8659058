"""Two models in one repository: each with its folder, its tokens, its metrics."""

from __future__ import annotations

import json

import pytest

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, infer, model_info, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def test_both_models_answer_with_their_own_tokens(echo_stack: Stack) -> None:
    inputs = [
        strings("text_input", ["并行计算"]),
        flag("return_token_ids", True),
        flag("exclude_input_in_output", True),
    ]
    first, second = (infer(echo_stack.grpc_address, inputs, model=model) for model in ("llm", "other"))
    assert first.error is None
    assert second.error is None
    ids = [json.loads(answer.responses[0]["token_ids"][0]) for answer in (first, second)]
    assert ids[0] != ids[1]
    assert second.joined().endswith("算")


def test_each_model_knows_its_folder(echo_stack: Stack) -> None:
    first, second = (model_info(echo_stack.grpc_address, model) for model in ("llm", "other"))
    assert second["model"].startswith("model")  # the last part of its folder
    assert first["model"] != second["model"]


def test_the_metrics_tell_the_models_apart(echo_stack: Stack) -> None:
    def both_are_there() -> bool:
        text = echo_stack.triton_metrics()
        alive = [line for line in text.splitlines() if line.startswith("llm:engine_alive")]
        return all(
            any(f'model="{model}"' in line and line.endswith(" 1") for line in alive) for model in ("llm", "other")
        )

    echo_stack.wait_for(both_are_there, 30, "telling of both models")


def test_the_gateway_serves_the_first(echo_stack: Stack) -> None:
    assert echo_stack.info()["model"] == model_info(echo_stack.grpc_address)["model"]
