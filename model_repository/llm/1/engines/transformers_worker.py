"""The one thread that runs the model: forms batches of waiting rows and decodes them to their end.

A batch is filled once and runs until its rows are finished; rows that come meanwhile wait. So that one long completion
does not keep the others waiting for its whole length, a batch that has places left is formed anew after
``_REGROUP_STEPS`` steps, together with waiting rows: its rows are prefilled again with what they have so far.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import EngineUnavailable, GenerationFailed, ModelError
from ..logs import logger
from .base import Sample
from .transformers_decode import Batch, DecodingModel
from .transformers_queue import RowQueue
from .transformers_row import Outlet, Row

_REGROUP_STEPS = 128  # a prefill of some hundred tokens a row costs about as much as a few of these steps


class ServedModel(DecodingModel, Protocol):
    """A decoding model that can also tidy up after a failure."""

    def free_cached_memory(self) -> None:
        """Give memory that a failed batch left reserved back to the device."""


class Worker:
    """Owns the thread, the batch and the model while they run; samples go back to the event loop in one call a step.

    A failing batch fails its rows with :class:`GenerationFailed` and the thread goes on. An error after which the
    device or the interpreter cannot be trusted ends the thread: every row gets :class:`EngineUnavailable`.
    """

    def __init__(self, name: str, model: ServedModel, queue: RowQueue, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._model = model
        self._queue = queue
        self._loop = loop
        self._last_step: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"transformers-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end after the queue was closed; return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether rows can be served."""
        return self._thread.is_alive() and not self._queue.is_closed

    @property
    def seconds_since_step(self) -> float | None:
        """Age of the latest step that produced tokens."""
        return None if self._last_step is None else time.monotonic() - self._last_step

    def _run(self) -> None:
        try:
            while self._queue.wait_for_rows():
                self._serve_batch()
        except BaseException:  # the thread's last act: a dead engine must not leave anybody waiting
            logger.exception("engine %s: the decode loop ended", self._name)
        finally:
            self._queue.close()
            self._fail(self._queue.drain(), EngineUnavailable("the engine has ended"))

    def _serve_batch(self) -> None:
        rows = self._queue.pick()
        try:
            batch = Batch(self._model, rows)
            while rows and not self._queue.is_closed:
                batch.step()
                self._last_step = time.monotonic()
                rows = self._queue.settle(stepped := rows)
                self._publish(stepped)
                joining = self._joining(batch, rows)
                rows = rows + joining
                if joining:
                    batch = Batch(self._model, rows)
                else:
                    batch.keep(rows)
            self._fail(rows, EngineUnavailable("the engine was stopped"))
        except BaseException as exc:
            if _is_fatal(exc):
                self._fail(rows, EngineUnavailable("the engine died"))
                raise
            logger.exception("engine %s: a batch of %d rows failed", self._name, len(rows))
            self._fail(rows, GenerationFailed(f"the engine failed on this request ({type(exc).__name__})"))
            self._model.free_cached_memory()

    def _joining(self, batch: Batch, live: Sequence[Row]) -> list[Row]:
        """Return the waiting rows for which the batch is to be formed anew."""
        return self._queue.pick(live) if live and batch.steps >= _REGROUP_STEPS else []

    def _publish(self, rows: Sequence[Row]) -> None:
        reports = [(row.outlet, sample) for row in rows if (sample := row.report()) is not None]
        if reports:
            self._on_loop(_deliver, reports)

    def _fail(self, rows: Sequence[Row], error: ModelError) -> None:
        for row in rows:
            row.cancelled = True
        self._queue.settle(rows)
        if rows:
            self._on_loop(_deliver_error, [row.outlet for row in rows], error)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._queue.close()


def _deliver(reports: Sequence[tuple[Outlet, Sample]]) -> None:
    for outlet, sample in reports:
        outlet.put(sample)


def _deliver_error(outlets: Sequence[Outlet], error: ModelError) -> None:
    for outlet in outlets:
        outlet.fail(error)


def _is_fatal(exc: BaseException) -> bool:
    """Whether nothing that follows can be trusted: a broken device context (every later call fails), or no error."""
    return not isinstance(exc, Exception) or "CUDA error" in str(exc)
