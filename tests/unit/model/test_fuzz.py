"""Any tensors whatever: one end of the stream, no error that was not meant, rows that add up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import triton_python_backend_utils as pb_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_model.parameters import SamplingParameters
from llm_model.rows import OUTPUT_FLAGS
from llm_model.service import ModelService
from tests.fakes.triton_python_backend_utils import FakeRequest, InferenceResponse, Tensor
from tests.unit.model.running import chat, error_of, new_service
from tests.unit.model.tiny_model import write_model_folder

FLAGS = ["stream", "partial", "exclude_input_in_output", *OUTPUT_FLAGS]
ODD_TEXTS = [b"", b"\xff", b"\x00", "😀".encode(), b"x" * 300, b"<|im_end|>", b" "]
ODD_CHATS = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"[[]]",
    b'[{"role":"user"}]',
    b'[{"role":1,"content":"x"}]',
    b"[" * 5000,
]
ODD_SAMPLING = [
    b"",
    b"{}",
    b"{",
    b"null",
    b"[]",
    b'{"n": 0}',
    b'{"n": 1e9}',
    b'{"extra_args": {}}',
    b"\xff",
    b'{"n":"3"}',
]
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(str.encode)
CHATS = st.sampled_from(ODD_CHATS) | st.text(max_size=8).map(chat).map(str.encode) | st.binary(max_size=8)
VALUES = st.integers(-2, 5) | st.floats() | st.sampled_from(["1", "x", None, True, [], ["x"], [1]])
FIELDS = st.dictionaries(st.sampled_from(SamplingParameters.__struct_fields__), VALUES, max_size=3)
BOOLEANS = st.just([True]) | st.lists(st.booleans(), max_size=2)
SAMPLING = st.sampled_from(ODD_SAMPLING) | FIELDS.map(json.dumps).map(str.encode)


def array(draw: Any, items: st.SearchStrategy[bytes]) -> Any:
    """An array of a few items: mostly of shape [N], sometimes of another."""
    values = np.array(draw(st.lists(items, max_size=5)), dtype=np.object_)
    return values if draw(st.integers(0, 9)) else values.reshape(-1, 1)


@st.composite
def requests(draw: Any) -> FakeRequest:
    tensors = []
    for name, items in (("text_input", TEXTS), ("messages", CHATS), ("sampling_parameters", SAMPLING)):
        if draw(st.booleans()):
            tensors.append(Tensor(name, array(draw, items)))
    chosen = draw(st.lists(st.sampled_from(FLAGS), unique=True))
    tensors += [Tensor(name, np.array(draw(BOOLEANS), dtype=np.bool_)) for name in chosen]
    parameters = st.dictionaries(
        st.sampled_from(["info", "n", "seed", "x"]), st.booleans() | st.integers(0, 3), max_size=2
    )
    return FakeRequest(draw(st.permutations(tensors)), draw(st.text(max_size=5)), draw(parameters))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelService]:
    with pytest.MonkeyPatch.context() as patch:
        running = new_service(write_model_folder(tmp_path_factory.mktemp("model")), [], patch)
    running.start()
    yield running
    running.stop()


def rows_and_error(responses: list[InferenceResponse]) -> tuple[list[int], str | None]:
    """The indices of all rows in the order they came, and the error at the end."""
    indices: list[int] = []
    for response in responses[:-1]:
        assert not response.has_error(), "only the last response may be an error"
    for response in responses:
        outputs = response.outputs()
        assert len({len(values) for values in outputs.values()}) <= 1, "all outputs have as many rows"
        indices += outputs["index"].tolist() if outputs else []
    if not responses or not responses[-1].has_error():
        return indices, None
    code, message = error_of(responses[-1])
    assert code == pb_utils.TritonError.INVALID_ARG, message
    return indices, message


@settings(deadline=None, max_examples=150)
@given(request=requests())
def test_every_request_ends_as_it_should(service: ModelService, request: FakeRequest) -> None:
    service.submit(request)
    indices, error = rows_and_error(request.sender.wait_closed())
    if error is not None:
        assert error.startswith("INVALID_ARG: ")
        return
    assert sorted(set(indices)) == list(range(max(indices) + 1)), "every row of every prompt"
    streams = any(tensor.name() == "stream" and tensor.as_numpy().any() for tensor in request.inputs())
    assert streams or len(indices) == len(set(indices)), "unstreamed, a row comes once"
