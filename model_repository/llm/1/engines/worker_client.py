"""The model process's end of the connection to one worker: what was sent, who waits for which answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from ..errors import EngineDied, EngineUnavailable, GenerationFailed, InvalidArgument, ModelError
from ..logs import logger
from . import worker_wire as wire
from .base import Done, GenerationRequest, Sample

Notice = wire.Hello | wire.Refused | wire.Failed | wire.Ready
StreamItem = list[Sample] | ModelError | None  # None: the end

_ERRORS: dict[str, type[ModelError]] = {
    InvalidArgument.code: InvalidArgument,
    EngineUnavailable.code: EngineDied,
    GenerationFailed.code: GenerationFailed,
}


class WorkerClient:
    """Sends prompts, whole batches at a time, and hands out what comes back. Lives as long as its worker."""

    def __init__(self, name: str, on_figures: Callable[[wire.Figures], None]) -> None:
        self.heard = 0  # messages so far
        self.failed = False  # the engine itself says that it is dead
        self.lost = False  # the connection has ended
        self._name = name
        self._on_figures = on_figures
        self._notices: asyncio.Queue[Notice | None] = asyncio.Queue()
        self._trouble = asyncio.Event()
        self._link = wire.Link(self._receive, self._lost)
        self._batch = wire.TurnBatch(self._flush)
        self._whole: list[GenerationRequest] = []
        self._streamed: list[GenerationRequest] = []
        self._aborted: list[str] = []
        self._answers: dict[str, Done] = {}
        self._streams: dict[str, asyncio.Queue[StreamItem]] = {}

    async def connect(self, connection: socket.socket) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=connection)

    def send(self, message: wire.ToWorker) -> None:
        self._link.send(message)

    async def next_notice(self) -> Notice | None:
        """What the worker says next about its start; ``None`` when the connection has ended."""
        return await self._notices.get()

    @property
    def in_trouble(self) -> bool:
        return self.failed or self.lost

    @property
    def in_flight(self) -> int:
        return len(self._answers) + len(self._streams)

    async def wait_trouble(self, timeout_s: float) -> None:
        """Return when the worker is in trouble, or after the time."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._trouble.wait(), timeout_s)

    def begin(self, request: GenerationRequest, done: Done) -> None:
        """One prompt to its end, which ``done`` is told: the samples, or the :class:`ModelError` it ended with."""
        self._answers[request.request_id] = done
        self._whole.append(request)
        self._batch.touch()

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this prompt any longer; it is aborted unless it has ended."""
        if self._answers.pop(request_id, None) is not None:
            self._abort(request_id)

    def open_stream(self, request: GenerationRequest) -> asyncio.Queue[StreamItem]:
        """The queue of a prompt's pieces, up to an error or ``None``. To be closed."""
        pieces = self._streams[request.request_id] = asyncio.Queue()
        self._streamed.append(request)
        self._batch.touch()
        return pieces

    def close_stream(self, request_id: str) -> None:
        """Nobody reads any longer; the prompt is aborted unless it has ended."""
        if self._streams.pop(request_id, None) is not None:
            self._abort(request_id)

    def close(self, reason: str) -> None:
        """End the connection; every prompt still in flight ends with :class:`EngineDied`."""
        self.lost = True
        self._trouble.set()
        self._link.close()
        answers, streams = self._answers, self._streams
        self._answers, self._streams = {}, {}
        for done in answers.values():
            done(EngineDied(reason))
        for pieces in streams.values():
            pieces.put_nowait(EngineDied(reason))

    def _abort(self, request_id: str) -> None:
        self._aborted.append(request_id)
        self._batch.touch()

    def _flush(self) -> None:
        if self._whole or self._streamed:
            self._link.send(wire.Submit(self._whole, self._streamed))
            self._whole, self._streamed = [], []
        if self._aborted:  # after the prompts: one may have been cancelled in the turn that it came in
            self._link.send(wire.Abort(self._aborted))
            self._aborted = []

    def _lost(self) -> None:
        self.lost = True
        self._trouble.set()
        self._notices.put_nowait(None)

    def _receive(self, body: bytes) -> None:
        self.heard += 1
        message = wire.decode_from_worker(body)
        if isinstance(message, wire.Results):
            self._take_results(message)
        elif isinstance(message, wire.Figures):
            self._on_figures(message)
            if not message.alive:
                self._has_failed()
        else:
            self._notices.put_nowait(message)

    def _take_results(self, results: wire.Results) -> None:
        for request_id, samples in results.pieces:
            if (pieces := self._streams.get(request_id)) is not None:
                pieces.put_nowait(samples)
        for request_id, samples in results.whole:
            if (done := self._answers.pop(request_id, None)) is not None:
                done(samples)
        for request_id in results.ended:
            if (pieces := self._streams.pop(request_id, None)) is not None:
                pieces.put_nowait(None)
        for failure in results.failed:
            self._fail(failure)

    def _fail(self, failure: wire.Failure) -> None:
        error = _ERRORS.get(failure.code, GenerationFailed)(failure.message)
        if isinstance(error, EngineDied):  # before the pool can choose this engine again
            self._has_failed()
        if (done := self._answers.pop(failure.request_id, None)) is not None:
            done(error)
        if (pieces := self._streams.pop(failure.request_id, None)) is not None:
            pieces.put_nowait(error)

    def _has_failed(self) -> None:
        if not self.failed:
            logger.error("the engine %s says that it is dead", self._name)
        self.failed = True
        self._trouble.set()
