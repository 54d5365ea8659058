"""``config.pbtxt`` and the code: the same inputs and outputs, by name, type and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.model_package import MODEL_VERSION_DIR
from llm_model import tensors
from llm_model.errors import GenerationFailed
from llm_model.parameters import DEFAULT
from llm_model.rows import OUTPUT_FLAGS, InferenceCall, OutputFlags, Row
from tests.fakes.triton_python_backend_utils import FakeRequest
from tests.unit.model.running import flag, read, strings

DTYPES = {"TYPE_STRING": np.object_, "TYPE_UINT32": np.uint32, "TYPE_FP32": np.float32, "TYPE_BOOL": np.bool_}


@pytest.fixture(scope="module")
def config() -> Any:
    text = (MODEL_VERSION_DIR.parent / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def type_name(value: int) -> str:
    name: str = model_config_pb2.DataType.Name(value)
    return name


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that reading a call looks for."""
    names: list[str] = []

    class Noting(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            names.append(name)
            return super().get(name, default)

    by_name = tensors.by_name
    monkeypatch.setattr(tensors, "by_name", lambda found: Noting(by_name(found)))
    read(FakeRequest([strings("text_input", ["a"])]))
    return names


def test_the_model_is_decoupled_and_batches_itself(config: Any) -> None:
    assert (config.name, config.backend, config.max_batch_size) == ("llm", "python", 0)
    assert config.model_transaction_policy.decoupled
    assert not config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_MODEL)
    ]


def test_the_inputs_are_those_that_are_read(config: Any, wanted: list[str]) -> None:
    assert sorted(wanted) == sorted(entry.name for entry in config.input)


def test_the_inputs_types_and_shapes(config: Any) -> None:
    texts = {"text_input", "messages", "sampling_parameters"}
    for entry in config.input:
        expected = ("TYPE_STRING", [-1]) if entry.name in texts else ("TYPE_BOOL", [1])
        assert (type_name(entry.data_type), list(entry.dims)) == expected, entry.name
        assert entry.optional, entry.name


def test_the_outputs_are_those_that_are_made(config: Any) -> None:
    call = InferenceCall("", [b"", b""], False, [DEFAULT] * 2, flags=OutputFlags(*[True] * len(OUTPUT_FLAGS)))
    rows = [Row(0, "text", "stop", 1, [1], -1.0, []), Row.of_error(1, GenerationFailed("x"))]
    made = {name: values.dtype for name, values in tensors.build_response(rows, call).outputs().items()}
    described = {entry.name: np.dtype(DTYPES[type_name(entry.data_type)]) for entry in config.output}
    assert made == described
    assert {tuple(entry.dims) for entry in config.output} == {(-1,)}


def test_each_flag_has_its_output(config: Any) -> None:
    outputs = {entry.name for entry in config.output}
    assert {name.removeprefix("return_") for name in OUTPUT_FLAGS} == outputs - {"text_output", "index", "error"}


def test_flags_are_read_from_boolean_tensors() -> None:
    found = read(FakeRequest([strings("text_input", ["a"]), *(flag(name) for name in OUTPUT_FLAGS)]))
    assert found.flags == OutputFlags(*[True] * len(OUTPUT_FLAGS))
