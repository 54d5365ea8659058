"""Whatever comes in over the tensors: the model answers or refuses by name, and lives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.echo.conftest import MAX_MODEL_LEN
from tests.e2e.stack import Stack
from tests.e2e.triton_client import Answer, flag, infer, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

# A few hundred requests, some seconds in all; the same ones each time, so that a failure is one for everybody.
bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)

FLAGS = ("stream", "partial", "exclude_input_in_output", "return_logprobs", "return_token_ids")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from(
    [
        *(
            "n",
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "seed",
            "stop",
            "stop_token_ids",
            "logprobs",
            "lora_name",
        ),
        *("logit_bias", "structured_outputs", "extra_args", "output_kind", "detokenize", "skip_clone", "bad_words"),
    ]
)
sampling_items = (
    st.dictionaries(field_names, json_values, max_size=3).map(json.dumps).map(str.encode)
    | json_values.map(json.dumps).map(str.encode)
    | st.binary(max_size=30)
)
messages_items = st.builds(lambda value: json.dumps(value).encode(), json_values) | st.lists(
    st.fixed_dictionaries({"role": st.text(max_size=9), "content": json_values}), max_size=3
).map(lambda value: json.dumps(value).encode())
text_items = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)


def row_errors(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(item) for response in answer.responses for item in response.get("error", []) if item]


def check(answer: Answer, rows: int, names: Sequence[str]) -> None:
    """An answer for every row, or a refusal that names what is wrong: one of ``names``."""
    if answer.error is not None:
        assert answer.message.startswith("INVALID_ARG: "), answer.message
        assert any(name in answer.message for name in names), answer.message
        return
    assert {index for response in answer.responses for index in response["index"]} >= set(range(rows))
    for error in row_errors(answer):
        assert error["code"] == "INVALID_ARG"
        assert any(name in error["message"] for name in names), error


def assert_alive(stack: Stack) -> None:
    answer = infer(stack.grpc_address, [strings("text_input", ["alive"])], parameters={"max_tokens": 1})
    assert answer.error is None, answer.message


@bounded
@given(items=st.lists(sampling_items, min_size=1, max_size=3), rows=st.integers(1, 3))
def test_sampling_parameters(echo_stack: Stack, items: list[bytes], rows: int) -> None:
    inputs = [strings("text_input", ["a b c"] * rows), strings("sampling_parameters", items)]
    check(infer(echo_stack.grpc_address, inputs), 1, ["sampling_parameters", "lora_name"])


@bounded
@given(
    parameters=st.dictionaries(
        field_names, st.integers(-(2**62), 2**62) | st.booleans() | st.text(max_size=9), max_size=4
    )
)
def test_request_parameters(echo_stack: Stack, parameters: dict[str, Any]) -> None:
    answer = infer(echo_stack.grpc_address, [strings("text_input", ["a b c"])], parameters=parameters)
    check(answer, 1, ["request parameters", "lora_name"])


@bounded
@given(items=st.lists(text_items, min_size=1, max_size=3))
def test_text_input(echo_stack: Stack, items: list[bytes]) -> None:
    answer = infer(echo_stack.grpc_address, [strings("text_input", items)], parameters={"max_tokens": 2})
    check(answer, len(items), ["text_input", "tokens; allowed are"])


@bounded
@given(items=st.lists(messages_items | st.binary(max_size=30), min_size=1, max_size=3))
def test_messages(echo_stack: Stack, items: list[bytes]) -> None:
    answer = infer(echo_stack.grpc_address, [strings("messages", items)], parameters={"max_tokens": 2})
    check(answer, len(items), ["messages", "tokens; allowed are"])


@bounded
@given(
    items=st.lists(
        st.lists(st.integers(-5, 70000), max_size=4).map(json.dumps) | st.text(max_size=9), min_size=1, max_size=3
    )
)
def test_token_ids(echo_stack: Stack, items: list[str]) -> None:
    parameters = {"text_input_is_token_ids": True, "max_tokens": 2}
    answer = infer(echo_stack.grpc_address, [strings("text_input", items)], parameters=parameters)
    check(answer, len(items), ["text_input"])


@bounded
@given(
    name=st.sampled_from(["text_input", "messages", "sampling_parameters", *FLAGS]),
    dtype=st.sampled_from(["BYTES", "BOOL", "INT32", "FP32", "UINT8"]),
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
def test_types_and_shapes(echo_stack: Stack, name: str, dtype: str, shape: list[int]) -> None:
    tensor = triton.InferInput(name, shape, dtype)
    kinds = {"BYTES": np.object_, "BOOL": np.bool_, "INT32": np.int32, "FP32": np.float32, "UINT8": np.uint8}
    values = np.full(shape, b"{}", dtype=np.object_) if dtype == "BYTES" else np.zeros(shape, dtype=kinds[dtype])
    tensor.set_data_from_numpy(values)
    others = [] if name in ("text_input", "messages") else [strings("text_input", ["a"])]
    answer = infer(echo_stack.grpc_address, [*others, tensor])
    if answer.error is not None:  # Triton's own checks of type and shape have no code's name before them
        assert name in answer.message, answer.message


@bounded
@given(flags=st.dictionaries(st.sampled_from(FLAGS), st.booleans()), rows=st.integers(1, 3), chat=st.booleans())
def test_flags(echo_stack: Stack, flags: dict[str, bool], rows: int, chat: bool) -> None:
    texts = [json.dumps([{"role": "user", "content": "a b"}])] * rows if chat else ["a b"] * rows
    inputs = [strings("messages" if chat else "text_input", texts), *(flag(name, on) for name, on in flags.items())]
    check(infer(echo_stack.grpc_address, inputs, parameters={"max_tokens": 2}), rows, ["exclude_input_in_output"])


def test_the_model_has_lived_through_it(echo_stack: Stack) -> None:
    assert_alive(echo_stack)
    assert "unhealthy" not in echo_stack.text()
    assert "could not be read" not in echo_stack.text()  # the log line of an error that nobody foresaw


def test_every_prompt_fits_or_names_the_limit(echo_stack: Stack) -> None:
    @bounded
    @given(words=st.integers(1, 4 * MAX_MODEL_LEN))
    def ask(words: int) -> None:
        answer = infer(echo_stack.grpc_address, [strings("text_input", ["a " * words])], parameters={"max_tokens": 1})
        check(answer, 1, [f"tokens; allowed are 1 to {MAX_MODEL_LEN - 1}"])

    ask()
