"""The wire: tensors as in config.pbtxt, BYTES elements as Triton writes them, broken responses noticed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from gateway.triton import wire
from gateway.triton.wire import Completion, Conversations, RowError, WireError

CONFIG = Path(__file__).resolve().parents[3] / "model_repository" / "llm" / "config.pbtxt"


@pytest.fixture(scope="module")
def config() -> Any:
    return text_format.Parse(CONFIG.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def _datatypes(tensors: Any) -> dict[str, str]:
    names = {"TYPE_STRING": "BYTES"}
    types = {tensor.name: model_config_pb2.DataType.Name(tensor.data_type) for tensor in tensors}
    return {name: names.get(kind, kind.removeprefix("TYPE_")) for name, kind in types.items()}


def test_every_tensor_used_is_in_the_models_configuration(config: Any) -> None:
    assert config.name == wire.MODEL_NAME
    assert config.max_batch_size == 0
    assert config.model_transaction_policy.decoupled
    assert wire.INPUTS.items() <= _datatypes(config.input).items()
    assert wire.OUTPUTS.items() <= _datatypes(config.output).items()


def test_inputs_not_sent_are_optional(config: Any) -> None:
    assert all(tensor.optional for tensor in config.input)


def test_flags_have_one_element_and_texts_any_number(config: Any) -> None:
    dims = {tensor.name: list(tensor.dims) for tensor in config.input}
    assert {name: dims[name] for name in wire.INPUTS} == {
        name: [1] if datatype == "BOOL" else [-1] for name, datatype in wire.INPUTS.items()
    }


@given(st.lists(st.binary(max_size=40)))
def test_strings_are_written_as_tritonclient_writes_them(items: list[bytes]) -> None:
    packed = wire.pack_strings(items)
    expected = serialize_byte_tensor(np.array(items, dtype=np.object_))
    assert packed == (expected.item() if expected.size else b"")
    assert list(deserialize_bytes_tensor(packed)) == items
    assert wire.unpack_strings(packed) == items


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_integers_are_little_endian(values: list[int]) -> None:
    assert wire.unpack_integers(struct.pack(f"<{len(values)}I", *values)) == values


@pytest.mark.parametrize("raw", [b"\x01", b"\x05\0\0\0abc", b"\x01\0\0\0a\x01\0\0"])
def test_strings_cut_short_are_noticed(raw: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        wire.unpack_strings(raw)


def _inputs(request: Any) -> dict[str, bytes]:
    return {tensor.name: raw for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)}


def _shapes(request: Any) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.shape) for tensor in request.inputs}


def test_a_single_conversation() -> None:
    request = wire.encode_request(Conversations([b"m"], [b"p"], "id-1"), [0])
    assert (request.model_name, request.id) == ("llm", "id-1")
    assert _shapes(request) == {
        "messages": [1],
        "sampling_parameters": [1],
        "return_finish_reason": [1],
        "return_num_input_tokens": [1],
        "return_num_output_tokens": [1],
    }
    assert wire.unpack_strings(_inputs(request)["messages"]) == [b"m"]


def test_a_batch_asks_for_partial_responses_and_shares_equal_parameters() -> None:
    request = wire.encode_request(Conversations([b"a", b"b", b"c"], [b"p", b"p", b"q"]), [0, 1])
    inputs = _inputs(request)
    assert wire.unpack_strings(inputs["messages"]) == [b"a", b"b"]
    assert wire.unpack_strings(inputs["sampling_parameters"]) == [b"p"]
    assert inputs["partial"] == b"\x01"


def test_parameters_that_differ_are_sent_for_each_row() -> None:
    request = wire.encode_request(Conversations([b"a", b"b", b"c"], [b"p", b"p", b"q"]), [0, 2])
    assert wire.unpack_strings(_inputs(request)["sampling_parameters"]) == [b"p", b"q"]
    assert _shapes(request)["sampling_parameters"] == [2]


def _response(**outputs: bytes) -> Any:
    response = service_pb2.ModelInferResponse(model_name="llm")
    for name, raw in outputs.items():
        response.outputs.add(name=name, datatype=wire.OUTPUTS.get(name, "BYTES"))
        response.raw_output_contents.append(raw)
    return response


def _rows(**changes: bytes) -> Any:
    outputs = {
        "text_output": wire.pack_strings(["答".encode(), b""]),
        "index": struct.pack("<2I", 1, 0),
        "error": wire.pack_strings([b"", b'{"code":"INVALID_ARG","message":"too long"}']),
        "finish_reason": wire.pack_strings([b"stop", b"error"]),
        "num_input_tokens": struct.pack("<2I", 5, 0),
        "num_output_tokens": struct.pack("<2I", 3, 0),
    }
    return _response(**outputs | changes)


def test_rows_come_with_their_index() -> None:
    assert wire.decode_rows(_rows()) == [
        (1, Completion("答", "stop", 5, 3)),
        (0, RowError("INVALID_ARG", "too long")),
    ]


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    rows = wire.decode_rows(_rows(text_output=wire.pack_strings([b"a\xff", b""])))
    assert rows[0][1] == Completion("a\ufffd", "stop", 5, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"text_output": wire.pack_strings([b"one"])},
        {"index": struct.pack("<1I", 0)},
        {"index": b"\0\0"},
        {"num_output_tokens": b""},
        {"error": wire.pack_strings([b"", b"not json"])},
        {"error": wire.pack_strings([b"", b"[]"])},
        {"finish_reason": b"\x09\0\0\0x"},
    ],
)
def test_a_broken_response_is_noticed(changes: dict[str, bytes]) -> None:
    with pytest.raises(WireError):
        wire.decode_rows(_rows(**changes))


def test_a_response_without_its_tensors_is_noticed() -> None:
    with pytest.raises(WireError):
        wire.decode_rows(_response(index=b"\0\0\0\0"))


def test_the_status_is_asked_for_by_a_parameter_and_read_from_text_output() -> None:
    request = wire.encode_info_request()
    assert request.parameters["info"].bool_param
    assert not request.inputs
    assert wire.decode_info(_response(text_output=wire.pack_strings([b'{"model":"m"}']))) == {"model": "m"}


@pytest.mark.parametrize("raw", [b"", wire.pack_strings([b"[]"]), wire.pack_strings([b"{"])])
def test_a_broken_status_is_noticed(raw: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_info(_response(text_output=raw))
