"""Triton's tensors in and out: every combination of inputs, and what the outputs look like."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import triton_python_backend_utils as pb_utils

from llm_model import tensors
from llm_model.errors import EngineUnavailable, GenerationFailed, InvalidArgument, ModelError
from llm_model.parameters import DEFAULT, SamplingParameters
from llm_model.rows import OUTPUT_FLAGS, InferenceCall, OutputFlags, Row
from tests.fakes.triton_python_backend_utils import FakeRequest, Tensor
from tests.unit.model.running import chat, flag, read, request, strings


def call(rows: int = 1, **changes: Any) -> InferenceCall:
    inputs = [b"x"] * rows
    return InferenceCall("", inputs, is_chat=False, params=[DEFAULT] * rows, **changes)


def built(rows: list[Row], of: InferenceCall) -> dict[str, Any]:
    outputs: dict[str, Any] = tensors.build_response(rows, of).outputs()
    return outputs


# Inputs


def test_texts_are_taken_as_they_are() -> None:
    found = read(request(["a", b"\xff", ""], request_id="the caller's"))
    assert found.inputs == [b"a", b"\xff", b""]
    assert (found.is_chat, found.caller_id, found.params) == (False, "the caller's", [DEFAULT] * 3)


@pytest.mark.parametrize("hidden", ["\n", "\r", "\x1b", "\u2028", "\u202e", "\x00"])
def test_a_callers_id_is_fit_for_one_line_of_a_log(hidden: str) -> None:
    assert read(request(["a"], request_id=f"线程 1{hidden}ERROR")).caller_id == "线程 1?ERROR"
    assert len(read(request(["a"], request_id="x" * 100_000)).caller_id) == 4096


def test_chats_are_taken_as_they_are() -> None:
    found = read(request(chats=[chat("a"), "[]"]))
    assert (found.is_chat, found.inputs) == (True, [chat("a").encode(), b"[]"])


@pytest.mark.parametrize("asked, given", [(request(), "neither"), (request(["a"], chats=[chat("b")]), "both were")])
def test_exactly_one_of_the_two_inputs_is_needed(asked: FakeRequest, given: str) -> None:
    with pytest.raises(InvalidArgument, match=f"exactly one of the inputs 'text_input' and 'messages' .*{given}"):
        read(asked)


@pytest.mark.parametrize("asked, name", [(request([]), "text_input"), (request(chats=[]), "messages")])
def test_an_empty_list_is_refused(asked: FakeRequest, name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"'{name}' is empty"):
        read(asked)


@pytest.mark.parametrize("name", ["text_input", "messages", "sampling_parameters"])
def test_a_wrong_shape_is_named(name: str) -> None:
    wrong = Tensor(name, np.array([[b"a"], [b"b"]], dtype=np.object_))
    others = [strings("text_input", ["a"])] if name == "sampling_parameters" else []
    with pytest.raises(InvalidArgument, match=rf"'{name}' has shape \[2, 1\]; allowed is \[N\]"):
        read(FakeRequest([*others, wrong]))


@pytest.mark.parametrize("name", ["stream", "partial", "exclude_input_in_output", *OUTPUT_FLAGS])
def test_a_flag_of_wrong_shape_is_named(name: str) -> None:
    asked = FakeRequest([strings("text_input", ["a"]), Tensor(name, np.array([True, False]))])
    with pytest.raises(InvalidArgument, match=rf"'{name}' has shape \[2\]; allowed is \[1\]"):
        read(asked)


@pytest.mark.parametrize("chosen", [(), *((name,) for name in OUTPUT_FLAGS), OUTPUT_FLAGS], ids=str)
def test_output_flags_mean_the_output_of_their_name(chosen: tuple[str, ...]) -> None:
    found = read(request(["a"], *chosen)).flags
    assert found == OutputFlags(**{name.removeprefix("return_"): True for name in chosen})


def test_a_flag_that_is_false_is_as_one_left_out() -> None:
    names = ("stream", "partial", *OUTPUT_FLAGS)
    asked = FakeRequest([strings("messages", [chat("a")]), *(flag(name, False) for name in names)])
    assert read(asked) == read(FakeRequest([strings("messages", [chat("a")])]))


@pytest.mark.parametrize("stream, partial", list(itertools.product((False, True), repeat=2)))
def test_stream_and_partial_are_read(stream: bool, partial: bool) -> None:
    found = read(FakeRequest([strings("text_input", ["a"]), flag("stream", stream), flag("partial", partial)]))
    assert (found.stream, found.partial) == (stream, partial)


@pytest.mark.parametrize(
    "is_chat, stream, exclude, echoes",
    [
        (False, False, None, True),
        (False, False, True, False),
        (False, False, False, True),
        (False, True, None, False),
        (False, True, True, False),
        (True, False, None, False),
        (True, False, False, True),
        (True, True, None, False),
    ],
)
def test_when_the_prompt_goes_before_the_completion(
    is_chat: bool, stream: bool, exclude: bool | None, echoes: bool
) -> None:
    flags = ("stream",) if stream else ()
    asked = request(None if is_chat else ["a"], *flags, chats=[chat("a")] if is_chat else None, exclude=exclude)
    assert read(asked).echo_input is echoes


def test_a_stream_cannot_repeat_the_prompt() -> None:
    with pytest.raises(InvalidArgument, match=r"'exclude_input_in_output' has value false. With 'stream' only true"):
        read(request(["a"], "stream", exclude=False))


# Sampling parameters


def test_one_item_is_for_all_rows() -> None:
    found = read(request(["a", "b", "c"], sampling=[{"max_tokens": 3}]))
    assert found.params == [SamplingParameters(max_tokens=3)] * 3


def test_n_items_are_for_their_rows() -> None:
    found = read(request(["a", "b"], sampling=[{"max_tokens": 3}, {"seed": 4}]))
    assert found.params == [SamplingParameters(max_tokens=3), SamplingParameters(seed=4)]


@pytest.mark.parametrize("items", [0, 2, 4])
def test_any_other_number_of_items_is_refused(items: int) -> None:
    with pytest.raises(InvalidArgument, match=f"'sampling_parameters' has {items} items; allowed are 1 or 3"):
        read(request(["a", "b", "c"], sampling=[{}] * items))


def test_a_wrong_item_of_many_is_its_rows_error() -> None:
    found = read(request(["a", "b", "c"], sampling=[{}, {"n": 0}, "{"]))
    first, second, third = found.params
    assert first == DEFAULT
    assert isinstance(second, InvalidArgument)
    assert second.message.startswith("sampling_parameters: 'n' has value 0")
    assert isinstance(third, InvalidArgument)
    assert third.message.startswith("sampling_parameters: not valid JSON")


@pytest.mark.parametrize("rows", [1, 3])
def test_a_wrong_item_for_all_is_the_requests_error(rows: int) -> None:
    with pytest.raises(InvalidArgument, match="'n' has value 0"):
        read(request(["a"] * rows, sampling=[{"n": 0}]))


def test_request_parameters_are_taken_where_there_is_no_tensor() -> None:
    found = read(request(["a", "b"], parameters={"max_tokens": 3, "temperature": "0.5"}))
    assert found.params == [SamplingParameters(max_tokens=3, temperature=0.5)] * 2
    with_tensor = read(request(["a"], sampling=[{"seed": 1}], parameters={"max_tokens": 3}))
    assert with_tensor.params == [SamplingParameters(seed=1)]


def test_wrong_request_parameters_are_named() -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: request parameters: .*'extra_args'"):
        read(request(["a"], parameters={"extra_args": "{}"}))


@pytest.mark.parametrize("parameters, wants", [({}, False), ({"info": True}, True), ({"info": False}, False)])
def test_the_info_parameter(parameters: dict[str, Any], wants: bool) -> None:
    assert tensors.wants_info(parameters) is wants


SWITCHES = [(True, True), (False, False), ("true", True), ("True", True), ("FALSE", False), ("false", False)]


@pytest.mark.parametrize("given, expected", SWITCHES, ids=repr)
def test_a_switch_may_be_a_word(given: Any, expected: bool) -> None:
    assert tensors.wants_info({"info": given}) is expected
    assert read(request(["[1]"], parameters={"text_input_is_token_ids": given})).is_token_ids is expected


@pytest.mark.parametrize("given", ["", "no", "0", 0, 1, 1.0, "x" * 1000], ids=lambda given: repr(given)[:10])
def test_a_switch_that_is_neither_is_named(given: Any) -> None:
    told = rf"' has value '{str(given)[:40]}'\. Allowed are true and false$"
    with pytest.raises(InvalidArgument, match=f"'info{told}"):
        tensors.wants_info({"info": given})
    for asked in ({"texts": ["[1]"]}, {"chats": [chat("a")]}):
        with pytest.raises(InvalidArgument, match=f"'text_input_is_token_ids{told}"):
            read(request(**asked, parameters={"text_input_is_token_ids": given}))


def test_info_that_is_not_wanted_is_no_sampling_parameter() -> None:
    assert read(request(["a"], parameters={"info": False, "seed": 1})).params == [SamplingParameters(seed=1)]


@pytest.mark.parametrize("given, expected", [({"text_input_is_token_ids": True}, True), ({}, False)])
def test_texts_may_be_token_ids(given: dict[str, Any], expected: bool) -> None:
    assert read(request(["[1]"], parameters=given)).is_token_ids is expected
    assert not read(request(chats=[chat("a")], parameters=given)).is_token_ids
    assert read(request(["[1]"], parameters={**given, "seed": 1})).params == [SamplingParameters(seed=1)]


def test_a_request_without_parameters_has_an_empty_text() -> None:
    asked = request(["a"])
    asked._parameters = ""
    assert tensors.request_parameters(asked) == {}
    assert read(asked).params == [DEFAULT]


# Outputs

FULL_ROW = Row(
    index=3,
    text="线程束\ud800",
    finish_reason="stop",
    num_input_tokens=7,
    token_ids=[5, 6],
    cumulative_logprob=-1.5,
    logprobs=[{5: {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}],
)


def test_text_and_index_are_always_there() -> None:
    outputs = built([FULL_ROW], call())
    assert list(outputs) == ["text_output", "index"]
    assert outputs["text_output"].tolist() == ["线程束?".encode()]  # what has no UTF-8 form is replaced
    assert (outputs["index"].tolist(), outputs["index"].dtype) == ([3], np.uint32)


@pytest.mark.parametrize(
    "rows, partial, there", [(1, False, False), (1, True, True), (2, False, True), (2, True, True)]
)
def test_the_error_output_is_there_for_many_rows_and_for_partial(rows: int, partial: bool, there: bool) -> None:
    outputs = built([FULL_ROW], call(rows, partial=partial))
    assert ("error" in outputs) is there
    if there:
        assert outputs["error"].tolist() == [b""]


def test_every_output_that_is_asked_for() -> None:
    outputs = built([FULL_ROW, Row(0)], call(2, flags=OutputFlags(*[True] * len(OUTPUT_FLAGS))))
    shown = {name: values.tolist() for name, values in outputs.items()}
    assert shown == {
        "text_output": ["线程束?".encode(), b""],
        "index": [3, 0],
        "error": [b"", b""],
        "finish_reason": [b"stop", b""],
        "cumulative_logprob": [-1.5, 0.0],
        "logprobs": [b'[{"5":{"logprob":-0.5,"rank":1,"decoded_token":"a"}}]', b"null"],
        "num_input_tokens": [7, 0],
        "num_output_tokens": [2, 0],
        "token_ids": [b"[5,6]", b"[]"],
    }
    dtypes = {name: values.dtype for name, values in outputs.items()}
    assert dtypes["cumulative_logprob"] == np.float32
    assert dtypes["num_input_tokens"] == dtypes["num_output_tokens"] == dtypes["index"] == np.uint32


def test_a_rows_error_is_json_beside_an_empty_text() -> None:
    row = Row.of_error(1, EngineUnavailable('no engine "x" is alive'))
    outputs = built([row], call(2, flags=OutputFlags(finish_reason=True)))
    assert outputs["text_output"].tolist() == [b""]
    assert outputs["finish_reason"].tolist() == [b"error"]
    assert json.loads(outputs["error"][0]) == {"code": "UNAVAILABLE", "message": 'no engine "x" is alive'}


def test_probabilities_of_nothing_are_still_json() -> None:
    row = Row(0, logprobs=[{1: {"logprob": float("-inf"), "rank": None, "decoded_token": None}}])
    (found,) = built([row], call(flags=OutputFlags(logprobs=True)))["logprobs"].tolist()
    assert json.loads(found) == [{"1": {"logprob": None, "rank": None, "decoded_token": None}}]


@pytest.mark.parametrize(
    "error, code",
    [
        (InvalidArgument("x"), pb_utils.TritonError.INVALID_ARG),
        (EngineUnavailable("x"), pb_utils.TritonError.UNAVAILABLE),
        (GenerationFailed("x"), pb_utils.TritonError.INTERNAL),
        (ModelError("x"), pb_utils.TritonError.INTERNAL),
    ],
)
def test_a_requests_error_has_tritons_code_and_begins_with_its_name(error: ModelError, code: int) -> None:
    found = tensors.build_error(error).error()
    assert (found.code(), found.message()) == (code, f"{error.code}: x")


def test_the_models_status_is_one_text() -> None:
    outputs = tensors.build_info(b"{}").outputs()
    assert {name: values.tolist() for name, values in outputs.items()} == {"text_output": [b"{}"], "index": [0]}
