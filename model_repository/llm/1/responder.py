"""The two blocking conversations with Triton, each on a thread of its own.

Sending a response and asking whether a request was cancelled are both round trips between the stub and Triton's core.
Neither may run on the event loop, where they would delay every other request's tokens.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import triton_python_backend_utils as pb_utils

from .logs import logger

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_POLL_S = 0.25  # how often cancellation is asked for; a cancelled request must be gone from the engine within 2 s
_MAX_POLL_SHARE = 0.1  # of one thread's time, however many requests are open
_MAX_PAUSE_S = 1.0
_MIN_AGE_S = 0.2  # a request younger than this is not asked about: most are answered by then

BuildResponse = Callable[[], Any]
Send = Callable[[], None]


class ResponseStream:
    """One request's way back to its caller: any number of responses, then one end."""

    def __init__(self, sender: Any, outbox: Outbox) -> None:
        self.urgent = False  # set before the first response: all of them go before others that wait
        self._sender = sender
        self._outbox = outbox
        self._closed = False
        # Triton frees what a sender points to when the final response goes out; a question about cancellation that is
        # under way then, or comes afterwards, crashes the server (seen with 2.51).
        self._ending = threading.Lock()
        self._ended = False
        self._lost = False  # a response could not be sent

    def send(self, build: BuildResponse) -> None:
        """Queue a response; ``build`` makes its tensors on the sending thread."""
        if not self._closed:
            self._outbox.put(lambda: self._send(build), urgent=self.urgent)

    def fail(self, build: BuildResponse) -> None:
        """Queue an error as the final response.

        In one message: for callers with ``triton_grpc_error`` Triton ends the stream at the error and frees what
        belongs to it, and a final flag that comes afterwards crashes the server (seen with 2.51).
        """
        self._finish(lambda: self._sender.send(build(), flags=_FINAL))

    def close(self) -> None:
        """Queue the empty final response that ends the stream, unless an error has."""
        self._finish(lambda: self._sender.send(flags=_FINAL))

    def _finish(self, send_final: Send) -> None:
        if not self._closed:
            self._closed = True
            self._outbox.put(lambda: self._end(send_final), urgent=self.urgent)

    def _send(self, build: BuildResponse) -> None:
        try:
            self._sender.send(build())
        except Exception:
            self._lost = True  # full shared memory, say: the end must not look like success
            raise

    def _end(self, send_final: Send) -> None:
        with self._ending:
            self._ended = True
            try:
                if self._lost:
                    error = pb_utils.TritonError("INTERNAL: a response was lost", pb_utils.TritonError.INTERNAL)
                    self._sender.send(pb_utils.InferenceResponse(error=error), flags=_FINAL)
                else:
                    send_final()
            except Exception:
                self._sender.send(flags=_FINAL)  # the flag needs no memory; without it the caller would wait for ever
                raise
            finally:
                # While there is a sender, Triton does not unload the model; who holds this stream must not matter.
                self._sender = None

    def is_cancelled(self) -> bool:
        """Ask Triton; blocks for one round trip. False once the stream has ended."""
        with self._ending:
            return not self._ended and bool(self._sender.is_cancelled())


class Outbox:
    """A thread that sends queued responses in order, urgent ones first."""

    def __init__(self) -> None:
        self._urgent: deque[Send] = deque()
        self._queue: deque[Send | None] = deque()
        self._queued: SimpleQueue[None] = SimpleQueue()  # one item for each that waits; a semaphore wakes more slowly
        self._thread = threading.Thread(target=self._run, name="responses", daemon=True)
        self._thread.start()

    def put(self, send: Send, *, urgent: bool = False) -> None:
        """Queue a call that sends something; the order within each of the two kinds is kept."""
        (self._urgent if urgent else self._queue).append(send)
        self._queued.put(None)

    def stop(self) -> None:
        """Send what is queued, then end the thread."""
        self._queue.append(None)
        self._queued.put(None)
        self._thread.join(timeout=10)

    def _next(self) -> Send | None:
        self._queued.get()
        return self._urgent.popleft() if self._urgent else self._queue.popleft()

    def _run(self) -> None:
        while (send := self._next()) is not None:
            try:
                send()
            except Exception:  # one request's trouble must not end the thread that serves all
                logger.exception("a response could not be sent")
            del send  # else the last request lives on until the next response


class CancellationWatcher:
    """A thread that asks Triton about every open request and reports the cancelled ones."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[ResponseStream, Callable[[], None], float]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancellations", daemon=True)
        self._thread.start()

    def watch(self, key: int, stream: ResponseStream, on_cancel: Callable[[], None]) -> None:
        """Call ``on_cancel`` (from the watcher's thread) once the request was cancelled, unless :meth:`forget` came."""
        with self._lock:
            self._open[key] = (stream, on_cancel, time.monotonic())

    def forget(self, key: int) -> None:
        with self._lock:
            self._open.pop(key, None)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        pause = _POLL_S
        while not self._stopping.wait(pause):
            started = time.monotonic()
            with self._lock:
                due = [(key, *entry[:2]) for key, entry in self._open.items() if started - entry[2] > _MIN_AGE_S]
            while due:
                self._check(*due.pop())  # no name here holds a request until the next one comes
            spent = time.monotonic() - started
            pause = min(max(_POLL_S, spent / _MAX_POLL_SHARE), _MAX_PAUSE_S)

    def _check(self, key: int, stream: ResponseStream, on_cancel: Callable[[], None]) -> None:
        try:
            cancelled = stream.is_cancelled()
        except Exception:
            logger.exception("the state of a request could not be asked for")
            return
        if cancelled:
            self.forget(key)
            on_cancel()
