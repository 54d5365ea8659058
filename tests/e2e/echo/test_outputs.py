"""Every combination of outputs, streamed and not, with several prompts and samples, and parameters by row."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.e2e.stack import Stack
from tests.e2e.triton_client import Answer, flag, infer, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

FLAGS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "return_token_ids",
)
COMBINATIONS = [
    tuple(name for name, on in zip(FLAGS, switches, strict=True) if on)
    for switches in itertools.product((False, True), repeat=len(FLAGS))
]
PROMPTS = ("并行计算的基本概念是什么", "线程块里的 barrier 怎么用", "how to avoid warp divergence")


def rows_of(answer: Answer) -> dict[int, list[dict[str, Any]]]:
    """Row index → its outputs in the order they came, one mapping a response."""
    assert answer.error is None, answer.message
    rows: dict[int, list[dict[str, Any]]] = {}
    for response in answer.responses:
        lengths = {len(values) for values in response.values()}
        assert len(lengths) == 1, response
        for place, index in enumerate(response["index"]):
            rows.setdefault(index, []).append({name: values[place] for name, values in response.items()})
    return rows


def check_row(pieces: list[dict[str, Any]], flags: tuple[str, ...], tokens: int) -> None:
    """What one row's outputs must be when ``tokens`` tokens were asked for, whatever the pieces it came in."""
    last = pieces[-1]
    if "return_finish_reason" in flags:
        assert [piece["finish_reason"] for piece in pieces] == [b""] * (len(pieces) - 1) + [b"length"]
    if "return_num_output_tokens" in flags:
        assert sum(piece["num_output_tokens"] for piece in pieces) == tokens
    if "return_token_ids" in flags:
        assert sum(len(json.loads(piece["token_ids"])) for piece in pieces) == tokens
    if "return_num_input_tokens" in flags:
        assert len({piece["num_input_tokens"] for piece in pieces}) == 1
        assert last["num_input_tokens"] >= tokens
    if "return_logprobs" in flags:
        assert {piece["logprobs"] for piece in pieces} == {b"null"}  # none were asked for by parameter
    if "return_cumulative_logprob" in flags:
        assert last["cumulative_logprob"] == 0.0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("prompts, n", [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_each_combination_of_flags_gives_exactly_its_outputs(
    echo_stack: Stack, streamed: bool, prompts: int, n: int
) -> None:
    base = [strings("text_input", PROMPTS[:prompts]), flag("stream", streamed)]
    for flags in COMBINATIONS:
        inputs = [*base, *(flag(name, name in flags) for name in FLAGS)]
        answer = infer(echo_stack.grpc_address, inputs, parameters={"max_tokens": 2, "n": n})
        rows = rows_of(answer)
        assert sorted(rows) == list(range(prompts * n)), flags
        expected = {"text_output", "index"} | {name.removeprefix("return_") for name in flags}
        expected |= {"error"} if prompts > 1 else set()
        for pieces in rows.values():
            assert all(set(piece) == expected for piece in pieces), flags
            assert len(pieces) == 1 or streamed  # tokens of one moment come together
            check_row(pieces, flags, 2)


def test_rows_arrive_in_pieces_with_the_same_outputs(echo_stack: Stack) -> None:
    inputs = [strings("text_input", PROMPTS), flag("partial", True), *(flag(name, True) for name in FLAGS)]
    rows = rows_of(infer(echo_stack.grpc_address, inputs, parameters={"max_tokens": 2, "n": 2}))
    assert sorted(rows) == list(range(6))
    for pieces in rows.values():
        assert len(pieces) == 1
        check_row(pieces, FLAGS, 2)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_each_row_has_its_own_parameters(echo_stack: Stack, streamed: bool) -> None:
    counts = (1, 3, 2)
    sampling = [
        json.dumps({"max_tokens": count, "seed": count, "stop": ["<|none|>"] * (count - 1)}) for count in counts
    ]
    inputs = [strings("text_input", PROMPTS), strings("sampling_parameters", sampling), flag("stream", streamed)]
    inputs += [flag("return_num_output_tokens", True), flag("return_finish_reason", True)]
    rows = rows_of(infer(echo_stack.grpc_address, inputs))
    for place, count in enumerate(counts):
        check_row(rows[place], ("return_num_output_tokens", "return_finish_reason"), count)


def test_request_parameters_are_the_tensors_parameters(echo_stack: Stack) -> None:
    prompts = strings("text_input", PROMPTS)
    parameters = {"max_tokens": 3, "temperature": 0.5, "ignore_eos": True, "seed": 7}
    by_request = infer(echo_stack.grpc_address, [prompts], parameters=parameters)
    as_tensor = infer(echo_stack.grpc_address, [prompts, strings("sampling_parameters", [json.dumps(parameters)])])
    assert rows_of(by_request) == rows_of(as_tensor)
    as_texts = {name: json.dumps(value) for name, value in parameters.items()}
    assert rows_of(infer(echo_stack.grpc_address, [prompts], parameters=as_texts)) == rows_of(as_tensor)


def test_the_tensor_goes_before_request_parameters(echo_stack: Stack) -> None:
    inputs = [
        strings("text_input", PROMPTS[:1]),
        strings("sampling_parameters", ['{"max_tokens": 1}']),
        flag("return_num_output_tokens", True),
    ]
    answer = infer(echo_stack.grpc_address, inputs, parameters={"max_tokens": 3, "no_such": 1})
    assert answer.responses[0]["num_output_tokens"] == [1]


def test_samples_of_different_number_are_refused(echo_stack: Stack) -> None:
    sampling = [json.dumps({"n": n}) for n in (1, 2, 1)]
    answer = infer(echo_stack.grpc_address, [strings("text_input", PROMPTS), strings("sampling_parameters", sampling)])
    assert answer.message == "INVALID_ARG: sampling_parameters: 'n' has values [1, 2]. Allowed is one for all prompts"


def test_a_long_prompt_names_both_numbers(echo_stack: Stack) -> None:
    answer = infer(echo_stack.grpc_address, [strings("text_input", ["线程 " * 2000])])
    assert answer.message.startswith("INVALID_ARG: the prompt has ")
    numbers = [int(word) for word in answer.message.replace(";", " ").split() if word.isdigit()]
    assert numbers[0] > 511
    assert numbers[-1] == 511
