"""A service on the fake Triton module, and requests for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_model import tensors
from llm_model.engines.base import Engine
from llm_model.engines.pool import EnginePool
from llm_model.engines.selection import Backend
from llm_model.rows import InferenceCall
from llm_model.service import ModelService
from llm_model.settings import ModelSettings
from llm_model.tokenization import Tokenization
from tests.fakes.triton_python_backend_utils import FakeRequest, InferenceResponse, Tensor
from tests.unit.model.tiny_model import MAX_MODEL_LEN


def new_service(folder: Path, engines: list[Engine], monkeypatch: pytest.MonkeyPatch) -> ModelService:
    """Return a service that is not started, over the echo engine or the engines given."""
    environ = {"MODEL_DIR": str(folder), "USE_VLLM": "echo", "SYSTEM_PROMPT": "Be brief."}
    if engines:
        tokenization = Tokenization.load(str(folder), trust_remote_code=False)
        backend = Backend("scripted", "1", "", EnginePool(engines), tokenization, MAX_MODEL_LEN)
        monkeypatch.setattr("llm_model.service.select_backend", lambda settings: backend)
    return ModelService(ModelSettings.from_env(environ), {"model": "llm", "version": "1"})


def strings(name: str, values: Sequence[str | bytes]) -> Tensor:
    """A tensor of texts, shape [N]."""
    encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
    return Tensor(name, np.array(encoded, dtype=np.object_))


def flag(name: str, value: bool = True) -> Tensor:
    return Tensor(name, np.array([value]))


def chat(content: str, system: str = "Be brief.") -> str:
    """The JSON of one conversation."""
    return json.dumps([{"role": "system", "content": system}, {"role": "user", "content": content}])


def request(
    texts: Sequence[str | bytes] | None = None,
    *flags: str,
    chats: Sequence[str | bytes] | None = None,
    sampling: Sequence[Mapping[str, Any] | str] | None = None,
    exclude: bool | None = None,
    request_id: str = "caller",
    parameters: Mapping[str, Any] | None = None,
) -> FakeRequest:
    """Make a request: inputs, flags that are true, sampling parameters for all or for each."""
    inputs = [flag(name) for name in flags]
    if texts is not None:
        inputs.append(strings("text_input", texts))
    if chats is not None:
        inputs.append(strings("messages", chats))
    if sampling is not None:
        items = [item if isinstance(item, str) else json.dumps(item) for item in sampling]
        inputs.append(strings("sampling_parameters", items))
    if exclude is not None:
        inputs.append(flag("exclude_input_in_output", exclude))
    return FakeRequest(inputs, request_id, parameters)


def read(asked: FakeRequest) -> InferenceCall:
    """The call that a request holds."""
    return tensors.read_call(asked, tensors.request_parameters(asked))


def answer(service: ModelService, asked: FakeRequest) -> list[InferenceResponse]:
    """Submit a request and return all its responses."""
    service.submit(asked)
    return asked.sender.wait_closed()


def rows_of(responses: Sequence[InferenceResponse], name: str = "text_output") -> dict[int, list[Any]]:
    """All values of one output by row index, in the order they came."""
    rows: dict[int, list[Any]] = {}
    for response in responses:
        assert not response.has_error(), error_of(response)
        outputs = response.outputs()
        for index, value in zip(outputs["index"].tolist(), outputs[name].tolist(), strict=True):
            rows.setdefault(index, []).append(value)
    return rows


def texts_of(responses: Sequence[InferenceResponse]) -> list[str]:
    """The joined text of every row, ordered by index."""
    rows = rows_of(responses)
    assert sorted(rows) == list(range(len(rows)))
    return [b"".join(rows[index]).decode() for index in sorted(rows)]


def error_of(response: InferenceResponse) -> tuple[int, str]:
    """Code and message of an error response."""
    error = response.error()
    assert error is not None
    return error.code(), error.message()


def only_error(responses: Sequence[InferenceResponse]) -> tuple[int, str]:
    """Code and message of the one response there is."""
    (response,) = responses
    return error_of(response)
