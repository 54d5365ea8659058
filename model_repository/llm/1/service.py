"""The model's life: start, serve calls, stop. Owns the event loop on which everything but Triton's own calls runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from . import tensors
from .adapters import Adapters
from .engines.selection import Backend, select_backend, start_backend
from .errors import EngineUnavailable, GenerationFailed, ModelError
from .event_loop import new_event_loop
from .garbage import spare_long_lived
from .generation import Generator
from .info import model_info
from .logs import logger
from .metrics import MetricsPublisher
from .responder import CancellationWatcher, Outbox, ResponseStream
from .row_cancellation import OpenCalls, RowCancellation
from .rows import InferenceCall, Row
from .settings import ModelSettings
from .warmup import warm_up

_STOP_TIMEOUT_S = 20.0


class ModelService:
    """Serves Triton's requests. ``submit`` is called by Triton's thread, never blocks and never raises."""

    def __init__(self, settings: ModelSettings, labels: Mapping[str, str]) -> None:
        """``labels`` name the model and its version in the metrics."""
        self._settings = settings
        self._labels = labels
        self._metrics: MetricsPublisher | None = None
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event-loop", daemon=True)
        self._outbox = Outbox()
        self._cancellations = CancellationWatcher()
        self._calls: set[asyncio.Task[None]] = set()
        self._open_calls = OpenCalls()
        self._backend: Backend | None = None
        self._generator: Generator | None = None
        self._stopping = False

    def start(self) -> None:
        """Load the model, start the engines, warm up. Raises :class:`StartupError`."""
        self._thread.start()
        backend = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self._metrics = MetricsPublisher(self._labels, backend.pool.figures)
        self._metrics.start()
        spare_long_lived()

    def submit(self, request: Any) -> None:
        """Take one Triton request; its answer goes out through the request's response sender."""
        stream = ResponseStream(request.get_response_sender(), self._outbox)
        try:
            fields = tensors.request_parameters(request)
            if tensors.wants_info(fields):
                stream.urgent = True  # whether the model works must be told while it has a lot to send
                self._loop.call_soon_threadsafe(self._answer_info, stream)
                return
            if (cancellation := tensors.read_cancellation(fields)) is not None:
                self._loop.call_soon_threadsafe(self._cancel_rows, cancellation, stream)
                return
            call = tensors.read_call(request, fields)
        except ModelError as exc:
            _fail(stream, exc)
        except Exception:
            logger.exception("a request could not be read")
            _fail(stream, GenerationFailed("the request could not be read"))
        else:
            self._loop.call_soon_threadsafe(self._begin, call, stream)

    def stop(self) -> None:
        """End running calls with UNAVAILABLE, then the engines, then the threads."""
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(timeout=_STOP_TIMEOUT_S)
        except Exception:
            logger.exception("the model did not stop in order")
        if self._metrics is not None:
            self._metrics.stop()
        self._cancellations.stop()
        self._outbox.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    async def _start(self) -> Backend:
        # The engines' processes end with the thread that starts them, which this one outlives: it runs the loop.
        self._backend = await start_backend(select_backend(self._settings))
        self._backend = backend = self._backend.fitted()
        adapters = Adapters.load(self._settings.lora_modules)
        generator = Generator(backend.pool, backend.tokenization, backend.max_model_len, adapters)
        await warm_up(generator, self._settings)
        self._generator = generator
        return backend

    async def _stop(self) -> None:
        self._stopping = True
        for task in list(self._calls):
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._backend is not None:
            await self._backend.pool.stop()

    def _begin(self, call: InferenceCall, stream: ResponseStream) -> None:
        # At once: the task begins a turn of the loop later, and a cancellation may come in this one.
        self._open_calls.enter(call.row_key, call.cancellable_rows)
        task = self._loop.create_task(self._serve(call, stream))
        task.add_done_callback(lambda _: self._open_calls.leave(call.row_key, call.cancellable_rows))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        self._cancellations.watch(id(task), stream, lambda: self._cancel(task))
        task.add_done_callback(lambda done: self._cancellations.forget(id(done)))
        # Whatever became of the task, one that was cancelled before it began included: Triton waits for every request.
        task.add_done_callback(lambda _: stream.close())

    def _cancel(self, task: asyncio.Task[None]) -> None:
        self._loop.call_soon_threadsafe(task.cancel)

    async def _serve(self, call: InferenceCall, stream: ResponseStream) -> None:
        """Answer one call; its end closes the stream.

        A call that its caller cancelled ends without an error: nobody reads it, and Triton 2.51 crashes on an error for
        a stream that was cancelled, if the caller had asked for status codes (``triton_grpc_error``).
        """
        assert self._generator is not None
        rows_of_call = self._generator.run(call)
        try:
            async for rows in rows_of_call:
                _send_rows(stream, rows, call)
        except ModelError as exc:
            _fail(stream, exc)
        except asyncio.CancelledError:
            logger.info("request %s was cancelled", call.caller_id or "without id")
            if self._stopping:
                _fail(stream, EngineUnavailable("the model is shutting down"))
        except Exception:
            logger.exception("request %s failed", call.caller_id or "without id")
            _fail(stream, GenerationFailed("the model failed on this request"))
        finally:
            await rows_of_call.aclose()

    def _cancel_rows(self, cancellation: RowCancellation, stream: ResponseStream) -> None:
        self._open_calls.cancel(cancellation)
        stream.send(lambda: tensors.build_info(b"{}"))
        stream.close()

    def _answer_info(self, stream: ResponseStream) -> None:
        assert self._backend is not None
        try:
            info = msgspec.json.encode(model_info(self._settings, self._backend))
        except Exception:
            logger.exception("the model's status could not be told")
            _fail(stream, GenerationFailed("the model's status is not known"))
        else:
            stream.send(lambda: tensors.build_info(info))
            stream.close()


def _send_rows(stream: ResponseStream, rows: list[Row], call: InferenceCall) -> None:
    stream.send(lambda: tensors.build_response(rows, call))


def _fail(stream: ResponseStream, error: ModelError) -> None:
    told = error.detached()
    stream.fail(lambda: tensors.build_error(told))
