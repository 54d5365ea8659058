"""An in-process server that speaks Triton's GRPCInferenceService for the model ``llm``, and misbehaves on demand.

What it does with a request is a *behaviour*: an async generator function that takes the :class:`Call` and yields lists
of :class:`Row`, raises :class:`Refuse`, or waits. Behaviours queued in ``script`` are used up one a request; after
them ``default`` answers. Probes (request id ``probe``) have a behaviour of their own.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2, service_pb2_grpc

PROBE_ID = "probe"


@dataclass(frozen=True)
class Row:
    """One output row; ``error`` is ``(code, message)``."""

    index: int
    text: str | bytes = ""
    finish_reason: str = "stop"
    num_input_tokens: int = 3
    num_output_tokens: int = 2
    error: tuple[str, str] | None = None


class Refuse(Exception):
    """End the request with this error. Texts of the model begin with its code's name, Triton's own do not.

    As in Triton, callers without the metadata ``triton_grpc_error: true`` get the text alone, in a message of the
    stream; others get the status, which ends the stream.
    """

    def __init__(self, status: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.status = status
        self.details = details


@dataclass
class Call:
    """One generation request as it arrived, and how it ended."""

    id: str
    messages: list[list[dict[str, str]]]
    sampling_parameters: list[dict[str, Any]]
    partial: bool
    metadata: dict[str, str]
    time_remaining_s: float
    row_key: str = ""
    cancelled_rows: list[int] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    was_cancelled: bool = False

    @property
    def questions(self) -> list[str]:
        """The last message of each conversation."""
        return [messages[-1]["content"] for messages in self.messages]

    def parameters_of(self, row: int) -> dict[str, Any]:
        """The sampling parameters of one row, shared ones included."""
        return self.sampling_parameters[row if len(self.sampling_parameters) > 1 else 0]


Behaviour = Callable[[Call], AsyncIterator[list[Row]]]


async def echo(call: Call) -> AsyncIterator[list[Row]]:
    """Answer every question with itself."""
    yield [Row(index, question) for index, question in enumerate(call.questions)]


def say(*texts: str | bytes) -> Behaviour:
    """Answer with these texts, one a row."""

    async def behaviour(call: Call) -> AsyncIterator[list[Row]]:
        yield [Row(index, text) for index, text in enumerate(texts)]

    return behaviour


def refuse(status: grpc.StatusCode, details: str) -> Behaviour:
    """Answer with an error of the whole request."""

    return respond(then=Refuse(status, details))


def respond(*groups: list[Row], then: Exception | None = None) -> Behaviour:
    """Answer with these groups of rows, then end, or fail with ``then``."""

    async def behaviour(call: Call) -> AsyncIterator[list[Row]]:
        for rows in groups:
            yield rows
        if then is not None:
            raise then

    return behaviour


def hang(*groups: list[Row]) -> Behaviour:
    """Answer with these groups of rows, then wait until the client gives up."""

    async def behaviour(call: Call) -> AsyncIterator[list[Row]]:
        for rows in groups:
            yield rows
        await asyncio.Event().wait()

    return behaviour


def wait_for(gate: asyncio.Event, then: Behaviour = echo) -> Behaviour:
    """Wait for ``gate`` before doing what ``then`` does."""

    async def behaviour(call: Call) -> AsyncIterator[list[Row]]:
        await gate.wait()
        async for rows in then(call):
            yield rows

    return behaviour


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A Triton server on ``port`` (0: any free one) of the loopback address; runs on the caller's event loop."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.port = port
        self.host = host
        self.calls: list[Call] = []
        self.probes: list[Call] = []
        self.script: deque[Behaviour] = deque()
        self.default: Behaviour = echo
        self.probe: Behaviour = echo
        self.info: dict[str, Any] = {"model": "fake", "backend": "echo", "engines": []}
        self.answers_info = True
        self.refuses_info = False
        self.info_requests = 0
        self._server: Any = None
        self._new_call = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; after :meth:`stop`, on the same port again."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._server = grpc.aio.server(options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(self.url)
        await self._server.start()

    async def stop(self) -> None:
        """Die: connections break, requests are lost."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    @property
    def rows(self) -> int:
        """How many prompts have arrived in all."""
        return sum(len(call.messages) for call in self.calls)

    async def wait_for_calls(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until ``count`` generation requests have arrived in all."""
        await self._wait_until(lambda: len(self.calls) >= count, timeout_s)

    async def wait_for_rows(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until ``count`` prompts have arrived in all."""
        await self._wait_until(lambda: self.rows >= count, timeout_s)

    async def _wait_until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with self._new_call:
            await asyncio.wait_for(self._new_call.wait_for(holds), timeout_s)

    async def ModelStreamInfer(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            if request.parameters["info"].bool_param:
                if self.refuses_info:
                    yield service_pb2.ModelStreamInferResponse(error_message="Stub process 'llm_0_0' is not healthy.")
                    continue
                yield await self._answer_info()
                continue
            if "cancel_rows" in request.parameters:
                self._cancel_rows(request)
                yield _message(_encode([Row(0, "{}")], with_errors=False))
                continue
            call = _read_call(request, context)
            behaviour = await self._note(call)
            try:
                async for rows in behaviour(call):
                    yield _message(_encode(rows, with_errors=call.partial))
            except Refuse as exc:
                if call.metadata.get("triton_grpc_error") == "true":
                    await context.abort(exc.status, exc.details)
                yield service_pb2.ModelStreamInferResponse(error_message=exc.details)
            except asyncio.CancelledError:
                call.was_cancelled = True
                raise
            finally:
                call.ended.set()

    def _cancel_rows(self, request: Any) -> None:
        rows = [int(row) for row in request.parameters["cancel_rows"].string_param.split(",")]
        for call in self.calls:
            if call.row_key == request.parameters["row_key"].string_param:
                call.cancelled_rows += rows

    async def _answer_info(self) -> Any:
        self.info_requests += 1
        if not self.answers_info:
            await asyncio.Event().wait()
        return _message(_encode([Row(0, json.dumps(self.info))], with_errors=False))

    async def _note(self, call: Call) -> Behaviour:
        if call.id == PROBE_ID:
            self.probes.append(call)
            return self.probe
        async with self._new_call:
            self.calls.append(call)
            self._new_call.notify_all()
        return self.script.popleft() if self.script else self.default


def _read_call(request: Any, context: Any) -> Call:
    raw = {tensor.name: content for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)}
    return Call(
        id=request.id,
        messages=[json.loads(item) for item in _strings(raw["messages"])],
        sampling_parameters=[json.loads(item) for item in _strings(raw["sampling_parameters"])],
        partial=raw.get("partial", b"\0") == b"\x01",
        metadata=dict(context.invocation_metadata()),
        time_remaining_s=context.time_remaining() or 0.0,
        row_key=request.parameters["row_key"].string_param,
    )


def _strings(raw: bytes) -> list[bytes]:
    items: list[bytes] = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        items.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return items


def _encode(rows: list[Row], *, with_errors: bool) -> Any:
    response = service_pb2.ModelInferResponse(model_name="llm")
    _add_strings(response, "text_output", [_as_bytes(row.text) for row in rows])
    _add_integers(response, "index", [row.index for row in rows])
    if with_errors:
        errors = [b"" if row.error is None else _error_json(*row.error) for row in rows]
        _add_strings(response, "error", errors)
    _add_strings(response, "finish_reason", [row.finish_reason.encode() for row in rows])
    _add_integers(response, "num_input_tokens", [row.num_input_tokens for row in rows])
    _add_integers(response, "num_output_tokens", [row.num_output_tokens for row in rows])
    return response


def _error_json(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "message": message}).encode()


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _add_strings(response: Any, name: str, items: list[bytes]) -> None:
    response.outputs.add(name=name, datatype="BYTES", shape=[len(items)])
    response.raw_output_contents.append(b"".join(struct.pack("<I", len(item)) + item for item in items))


def _add_integers(response: Any, name: str, items: list[int]) -> None:
    response.outputs.add(name=name, datatype="UINT32", shape=[len(items)])
    response.raw_output_contents.append(struct.pack(f"<{len(items)}I", *items))


def _message(response: Any) -> Any:
    return service_pb2.ModelStreamInferResponse(infer_response=response)
