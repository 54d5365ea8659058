"""What the model process and an engine's worker process tell each other, and how: whole batches, one message each.

A message is four bytes of length (big endian) and a msgpack-encoded struct of this module. Whatever a side has to say
within one turn of its event loop goes into one message, so that a batch of a thousand prompts costs one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, cast

import msgspec

from ..settings import ModelSettings
from .base import EngineStatus, GenerationRequest, Sample
from .stats import StatsSnapshot

_LENGTH_BYTES = 4


# To the worker


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first message: which engine to start. ``options`` are the plan's engine arguments."""

    name: str
    settings: ModelSettings
    max_model_len: int
    options: dict[str, Any]


class Submit(msgspec.Struct, tag=True, frozen=True):
    """Prompts that are to be run to their end, and prompts whose tokens are wanted as they come."""

    whole: list[GenerationRequest]
    streamed: list[GenerationRequest]


class Abort(msgspec.Struct, tag=True, frozen=True):
    """Request ids that nobody waits for any longer."""

    request_ids: list[str]


class Stop(msgspec.Struct, tag=True, frozen=True):
    """End the engine, then the process."""


# From the worker


class Hello(msgspec.Struct, tag=True, frozen=True):
    """The engine's software is there and fits the model; it starts now. ``device`` is what it computes on."""

    device: Literal["cpu", "gpu"]


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The engine's software cannot serve this model on this machine; another backend may."""

    reason: str


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The engine cannot start, for a cause in one line."""

    cause: str


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The engine takes prompts. ``dtype`` is the type its weights are computed in."""

    dtype: str


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """A prompt that ended in an error, with the code of :class:`ModelError`."""

    request_id: str
    code: str
    message: str


class Results(msgspec.Struct, tag=True, frozen=True):
    """What happened to prompts in one turn: pieces of streams, whole answers, ends of streams, errors."""

    pieces: list[tuple[str, list[Sample]]]
    whole: list[tuple[str, list[Sample]]]
    ended: list[str]
    failed: list[Failure]


class Figures(msgspec.Struct, tag=True, frozen=True):
    """The engine's state, at least once a second. ``last_step`` is on the machine's monotonic clock, in seconds."""

    alive: bool
    status: EngineStatus
    stats: StatsSnapshot
    last_step: float | None


ToWorker = Setup | Submit | Abort | Stop
FromWorker = Hello | Refused | Failed | Ready | Results | Figures

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """The bytes of one message, its length before it."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_to_worker(body: bytes | memoryview) -> ToWorker:
    """Raises ``msgspec.DecodeError`` for anything but a message to a worker."""
    return _to_worker.decode(body)


def decode_from_worker(body: bytes | memoryview) -> FromWorker:
    """Raises ``msgspec.DecodeError`` for anything but a message from a worker."""
    return _from_worker.decode(body)


class Link(asyncio.Protocol):
    """One end of the connection. ``on_body`` gets every message's bytes, ``on_closed`` is called once at the end."""

    def __init__(self, on_body: Callable[[bytes], None], on_closed: Callable[[], None]) -> None:
        self._on_body = on_body
        self._on_closed = on_closed
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start, end = 0, len(self._buffer)
        while end - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            following = body + int.from_bytes(self._buffer[start:body], "big")
            if following > end:
                break
            self._on_body(bytes(self._buffer[body:following]))
            start = following
        del self._buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_closed()

    def send(self, message: ToWorker | FromWorker) -> None:
        """Write a message; nothing happens once the other side has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class TurnBatch:
    """Calls ``flush`` once, after the callbacks that are due in this turn of the event loop."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._due = False

    def touch(self) -> None:
        """There is something to send."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._due = False
        self._flush()
