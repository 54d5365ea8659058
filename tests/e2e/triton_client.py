"""Requests to the model with NVIDIA's own client library, as direct clients send them."""

from __future__ import annotations

import json
import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

TIMEOUT_S = 120.0


@dataclass
class Answer:
    """Everything that came back for one request: responses as output name → list, and the error that ended it."""

    responses: list[dict[str, list[Any]]] = field(default_factory=list)
    error: InferenceServerException | None = None
    final: bool = False

    def joined(self, index: int = 0) -> str:
        """The text of one row over all responses."""
        return "".join(
            text.decode()
            for response in self.responses
            for text, place in zip(response["text_output"], response["index"], strict=True)
            if place == index
        )

    @property
    def message(self) -> str:
        assert self.error is not None, self.responses
        return str(self.error.message())


def strings(name: str, values: Sequence[str | bytes]) -> triton.InferInput:
    """A STRING tensor of shape [N]."""
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    tensor = triton.InferInput(name, [len(encoded)], "BYTES")
    tensor.set_data_from_numpy(np.array(encoded, dtype=np.object_))
    return tensor


def flag(name: str, value: bool) -> triton.InferInput:
    """A BOOL tensor of shape [1]."""
    tensor = triton.InferInput(name, [1], "BOOL")
    tensor.set_data_from_numpy(np.array([value]))
    return tensor


def infer(
    address: str,
    inputs: Sequence[triton.InferInput],
    parameters: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    model: str = "llm",
) -> Answer:
    """Send one request on a stream of its own and collect its answer up to the final response or the error."""
    came: queue.Queue[tuple[Any, InferenceServerException | None]] = queue.Queue()
    answer = Answer()
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: came.put((result, error)), headers=headers)
        client.async_stream_infer(model, list(inputs), parameters=parameters, enable_empty_final_response=True)
        while not answer.final and answer.error is None:
            result, error = came.get(timeout=TIMEOUT_S)
            if error is not None:
                answer.error = error
                continue
            response = result.get_response()
            if response.outputs:
                answer.responses.append({out.name: result.as_numpy(out.name).tolist() for out in response.outputs})
            answer.final = response.parameters["triton_final_response"].bool_param
    return answer


def model_info(address: str, model: str = "llm") -> dict[str, Any]:
    """The model's own word about itself."""
    answer = infer(address, [], parameters={"info": True}, model=model)
    info: dict[str, Any] = json.loads(answer.responses[0]["text_output"][0])
    return info


def requests_in_engines(address: str) -> int:
    """Requests running or waiting in the engines."""
    return sum(engine["running"] + engine["waiting"] for engine in model_info(address)["engines"])
