"""One look at the model through Triton's gRPC, as the watchdog needs it: does it generate, and if not, what does it do?

The one module here that needs more than the standard library: gRPC and Triton's messages, from the service's packages.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from runtime.ports import host_port

Outcome = Literal["answered", "failed", "late"]
State = Literal["absent", "answers", "starting", "busy", "silent", "dead"]

PATIENCE_S = (
    3.0  # then the status is asked for already: a Triton without its stub may hold the probe until its deadline
)
STATUS_TIMEOUT_S = 10.0  # the status needs no engine; a stub that takes longer for it does not run its event loop
_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
# A fresh connection a look: nothing of an earlier Triton's lasts. A proxy of the environment is not meant for Triton.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


@dataclass(frozen=True)
class Sign:
    """What a look has shown.

    ``absent``: nobody listens, so Triton is being started. ``answers``: a token was generated. Without that,
    ``starting``: an engine is being started; ``busy``: engines have made their latest step ``step_age_s`` seconds ago;
    ``silent``: there is no status, or no engine that is alive in it; ``dead``: Triton itself refuses, its stub is gone.
    """

    state: State
    step_age_s: float | None = None


class TritonProbe:
    """Looks at the model at one address."""

    def __init__(self, address: tuple[str, int], probe_s: float, status_s: float = STATUS_TIMEOUT_S) -> None:
        self._address = address
        self._probe_s = probe_s
        self._status_s = status_s

    def look(self) -> Sign:
        """Ask for one token; while that is awaited, and if it fails, for the status. Takes at most all time-outs."""
        if not _accepts(self._address):
            return Sign("absent")
        target = host_port(*self._address)
        with ThreadPoolExecutor(1) as waiter, grpc.insecure_channel(target, options=_OPTIONS) as channel:
            # Leaving closes the channel first, which ends a call that is still waited for.
            return self._look(channel, waiter.submit(_ask, channel, probe_request(), self._probe_s))

    def _look(self, channel: Any, probe: Future[tuple[Outcome, list[Any]]]) -> Sign:
        for patience_s in (PATIENCE_S, None):
            wait([probe], patience_s)
            if probe.done() and probe.result()[0] == "answered":
                return Sign("answers")
            told, responses = _ask(channel, status_request(), self._status_s)
            if told == "failed":  # by Triton itself: the model would have told
                return Sign("dead")
        return sign_of(_status(responses)) if told == "answered" else Sign("silent")


def sign_of(status: Mapping[str, Any]) -> Sign:
    """What the engines of a model do that has not answered."""
    engines = status.get("engines") or []
    if any(engine.get("state") in ("starting", "restarting") for engine in engines):
        return Sign("starting")
    alive = [engine for engine in engines if engine.get("state") == "ready"]
    ages = [engine["seconds_since_step"] for engine in alive if engine.get("seconds_since_step") is not None]
    return Sign("busy", min(ages)) if ages else Sign("silent")


def probe_request() -> Any:
    """Ask for one token. A single prompt goes before the waiting rows of a batch."""
    request = service_pb2.ModelInferRequest(model_name="llm", id="watchdog")
    _add_text(request, "messages", json.dumps([{"role": "user", "content": "1"}]))
    _add_text(request, "sampling_parameters", json.dumps({"max_tokens": 1, "temperature": 0.0}))
    return request


def status_request() -> Any:
    """Ask what ``/info`` shows."""
    request = service_pb2.ModelInferRequest(model_name="llm", id="watchdog")
    request.parameters["info"].bool_param = True
    return request


def _ask(channel: Any, request: Any, timeout_s: float) -> tuple[Outcome, list[Any]]:
    """Send a request and read its stream to the end.

    Without the metadata ``triton_grpc_error``: Triton 2.51 crashes when a stream that has it is cancelled.
    """
    call = channel.unary_stream(
        _STREAM_INFER,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    try:
        messages = list(call(request, timeout=timeout_s))
    except grpc.RpcError as exc:
        return ("late" if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED else "failed"), []
    errors = [message.error_message for message in messages if message.error_message]
    if errors and not errors[0].startswith("INVALID_ARG"):  # a model that finds fault with the probe is alive
        return "failed", []
    return "answered", [message.infer_response for message in messages]


def _status(responses: list[Any]) -> Mapping[str, Any]:
    try:
        content = responses[0].raw_output_contents[0]
        status = json.loads(content[4 : 4 + struct.unpack_from("<I", content)[0]])
    except (IndexError, ValueError, struct.error):
        return {}
    return status if isinstance(status, dict) else {}


def _add_text(request: Any, name: str, text: str) -> None:
    raw = text.encode()
    request.inputs.add(name=name, datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(raw)) + raw)


def _accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1.0):
            return True
    except ConnectionError:
        return False
    except OSError:  # no answer in time, as from a stopped process whose queue is full: not absent
        return True
