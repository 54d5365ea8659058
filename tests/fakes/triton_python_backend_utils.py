"""Triton's Python-backend module as code: what a stub gives the model, without a stub.

Names and behaviour follow ``triton_python_backend_utils`` of Triton 2.51. A response sender keeps what was sent and is
as strict as the real one: nothing can be sent after the final flag, and every call sends something.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

Array = npt.NDArray[Any]


class TritonModelException(Exception):
    """Raised by a model for Triton to report."""


class TritonError:
    """An error with a code that reaches the caller."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        if not isinstance(message, str):
            raise TypeError(f"an error's message is a text, not {type(message).__name__}")
        self._message = message
        self._code = code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Tensor:
    """A named array. Texts are arrays of objects, all ``bytes``."""

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(array, np.ndarray):
            raise TritonModelException(f"tensor {name} is no array")
        if array.dtype == np.object_ and not all(isinstance(item, bytes) for item in array.reshape(-1)):
            raise TritonModelException(f"tensor {name} holds something other than bytes")
        self._name = name
        self._array = array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array


class InferenceResponse:
    """One response: tensors, or an error."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._tensors = list(output_tensors)
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def outputs(self) -> dict[str, Array]:
        """For tests: the tensors by name."""
        return {tensor.name(): tensor.as_numpy() for tensor in self._tensors}


class FakeResponseSender:
    """Keeps the responses of one request. ``cancelled`` is what the caller of the request has done.

    ``crashes`` lists what would have crashed the server: Triton 2.51 frees the stream of a request with the final
    response (and with an error, for a caller that wants status codes), and does not bear to hear of it afterwards.
    """

    def __init__(self) -> None:
        self.responses: list[InferenceResponse] = []
        self.finals = 0
        self.cancelled = False
        self.refuses = False  # as when shared memory is full: responses cannot be sent, the final flag can
        self.questions = 0
        self.crashes: list[str] = []
        self._changed = threading.Condition()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        with self._changed:
            self._refuse_misuse(response, flags)
            if response is not None:
                self.responses.append(response)
            self.finals += flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL
            self._changed.notify_all()

    def _refuse_misuse(self, response: InferenceResponse | None, flags: int) -> None:
        if self.finals:
            self.crashes.append("something was sent after the end")
            raise TritonModelException("the final response has been sent already")
        if response is None and flags != TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            raise TritonModelException("a response or the final flag is needed")
        if response is not None and self.refuses:
            raise TritonModelException("no shared memory is left")
        if any(earlier.has_error() for earlier in self.responses):
            self.crashes.append("something was sent behind an error")
        if response is not None and response.has_error() and self.cancelled:
            self.crashes.append("an error was sent to a caller that had cancelled")

    def is_cancelled(self) -> bool:
        with self._changed:
            self.questions += 1
            if self.finals:
                self.crashes.append("cancellation was asked about after the end")
            return self.cancelled

    def wait_closed(self, timeout_s: float = 10.0) -> list[InferenceResponse]:
        """Return all responses once the stream is closed."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.finals > 0, timeout_s), "the stream was not closed"
            assert (self.finals, self.crashes) == (1, [])
            return list(self.responses)

    def wait_responses(self, count: int, timeout_s: float = 10.0) -> list[InferenceResponse]:
        """Return the responses once there are ``count`` of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.responses) >= count, timeout_s), "responses are missing"
            return list(self.responses)


class FakeRequest:
    """One inference request, with the sender of its responses."""

    def __init__(
        self, inputs: Iterable[Tensor] = (), request_id: str = "", parameters: Mapping[str, Any] | None = None
    ) -> None:
        self.sender = FakeResponseSender()
        self._inputs = list(inputs)
        self._request_id = request_id
        self._parameters = json.dumps(dict(parameters or {}))

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return self._request_id

    def parameters(self) -> str:
        return self._parameters

    def get_response_sender(self) -> FakeResponseSender:
        return self.sender


class Metric:
    """One time series. A counter only grows."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._value = 0.0

    def increment(self, value: float) -> None:
        if self._kind == MetricFamily.COUNTER and value < 0:
            raise TritonModelException("a counter cannot decrease")
        self._value += value

    def set(self, value: float) -> None:
        if self._kind == MetricFamily.COUNTER:
            raise TritonModelException("a counter cannot be set")
        self._value = value

    def value(self) -> float:
        return self._value


class MetricFamily:
    """A named set of time series. ``available`` false: the server was started without metrics."""

    COUNTER, GAUGE = range(2)
    available = True
    series: ClassVar[dict[tuple[str, frozenset[tuple[str, str]]], Metric]] = {}

    def __init__(self, name: str, description: str, kind: int) -> None:
        if not self.available:
            raise TritonModelException("metrics not supported")
        assert description, f"{name} has no description"
        self._name = name
        self._kind = kind

    def Metric(self, labels: Mapping[str, str]) -> Metric:
        metric = Metric(self._kind)
        MetricFamily.series[self._name, frozenset(labels.items())] = metric
        return metric

    @classmethod
    def value(cls, name: str, **labels: str) -> float | None:
        """For tests: the value of the one series of that name whose labels include these."""
        found = [m for (n, has), m in cls.series.items() if n == name and set(labels.items()) <= has]
        assert len(found) < 2, f"{name} {labels} is more than one series"
        return found[0].value() if found else None
