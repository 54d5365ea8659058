"""The fallback engine: Hugging Face transformers behind the engine interface, for machines where vLLM does not run.

It has vLLM's meanings of the sampling parameters, and its own decode loop in place of ``model.generate``:

1. ``generate`` and ``stream`` turn a request into rows, one a sample, and put them into a queue.
2. One thread takes the rows that fit together, prefills and decodes them (:mod:`.transformers_worker`).
3. After each step it hands samples to the event loop, where the request's mailbox keeps them for the waiting task.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Protocol

from ..errors import EngineUnavailable, InvalidArgument, ModelError
from ..logs import logger
from ..parameters import SamplingParameters
from .base import EngineStatus, GenerationRequest, Sample
from .stats import EngineStats
from .transformers_model import TransformersConfig, load_model
from .transformers_queue import BatchLimits, RowQueue
from .transformers_row import Row
from .transformers_text import CompletionText
from .transformers_worker import ServedModel, Worker

__all__ = ["TransformersConfig", "TransformersEngine"]

_STOP_TIMEOUT_S = 10.0  # a step of a large prefill can take seconds; the thread looks up between steps


class EngineModel(ServedModel, Protocol):
    """What the engine needs of a loaded model."""

    limits: BatchLimits
    max_model_len: int
    dtype: str


class TransformersEngine:
    """One model, one worker thread. See :class:`.base.Engine` for what the methods promise."""

    def __init__(
        self,
        name: str,
        config: TransformersConfig,
        load: Callable[[TransformersConfig], EngineModel] = load_model,
    ) -> None:
        self.name = name
        self.stats = EngineStats()
        self._config = config
        self._load = load
        self._model: EngineModel | None = None
        self._queue: RowQueue | None = None
        self._worker: Worker | None = None
        self._is_stopped = False

    @property
    def dtype(self) -> str:
        """The type the weights are computed in, known once started."""
        return self._config.dtype if self._model is None else self._model.dtype

    async def start(self) -> None:
        """Load the model in a thread of its own, so that the event loop goes on."""
        model = await asyncio.to_thread(self._load, self._config)
        self._model = model
        self._queue = RowQueue(model.limits)
        self._worker = Worker(self.name, model, self._queue, asyncio.get_running_loop())
        self._worker.start()

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        """Return the finished samples of one prompt, ordered by index."""
        samples: list[Sample] = []
        with self._submitted(request, is_streaming=False) as mailbox:
            while mailbox.is_open:
                samples += await mailbox.take()
        return sorted(samples, key=lambda sample: sample.index)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        """Yield what is new; steps that the consumer was too slow for come together."""
        with self._submitted(request, is_streaming=True) as mailbox:
            while mailbox.is_open:
                yield await mailbox.take()

    def is_alive(self) -> bool:
        """Whether the worker thread takes rows."""
        return self._worker is not None and self._worker.is_alive

    def status(self) -> EngineStatus:
        """Return a snapshot. Samples are counted, not prompts; outstanding are prompt tokens not yet read and tokens
        that the samples may still get."""
        if self._queue is None or self._worker is None:
            return EngineStatus(self.name, "dead" if self._is_stopped else "starting")
        return EngineStatus(
            name=self.name,
            state="ready" if self.is_alive() else "dead",
            running=self._queue.running,
            waiting=self._queue.waiting,
            outstanding_tokens=self._queue.outstanding_tokens,
            seconds_since_step=self._worker.seconds_since_step,
        )

    async def stop(self) -> None:
        """End the thread between two steps and let go of the model."""
        self._is_stopped = True
        if self._queue is None or self._worker is None:
            return
        self._queue.close()
        if not await asyncio.to_thread(self._worker.join, _STOP_TIMEOUT_S):
            logger.warning("engine %s: the worker is still in a step; it ends with the process", self.name)
        self._queue = self._worker = self._model = None

    @contextlib.contextmanager
    def _submitted(self, request: GenerationRequest, is_streaming: bool) -> Iterator[_Mailbox]:
        """Put the request's rows into the queue; on leaving, whatever the reason, take back what is not finished."""
        queue, model = self._queue, self._model
        if queue is None or model is None:
            raise EngineUnavailable("the engine is not running")
        _check_prompt(request.token_ids, model)
        _check_supported(request.params)
        mailbox = _Mailbox(request.params.n)
        rows = [_row(request, index, model, mailbox, is_streaming) for index in range(request.params.n)]
        queue.submit(rows)
        try:
            yield mailbox
        finally:
            queue.cancel(rows)


def _check_supported(params: SamplingParameters) -> None:
    """Refuse by name what only vLLM can do."""
    for name in ("logit_bias", "allowed_token_ids", "bad_words", "structured_outputs"):
        if getattr(params, name) is not None:
            raise InvalidArgument(f"sampling_parameters: '{name}' is not supported by the transformers backend")


def _check_prompt(token_ids: list[int], model: EngineModel) -> None:
    if not token_ids:
        raise InvalidArgument("the prompt is empty")
    if len(token_ids) >= model.max_model_len:
        raise InvalidArgument(
            f"the prompt has {len(token_ids)} tokens; the model takes at most {model.max_model_len - 1}"
            f" and leaves one of its {model.max_model_len} for the completion"
        )
    if min(token_ids) < 0 or max(token_ids) >= model.vocab_size:
        raise InvalidArgument(f"the prompt has token ids outside the vocabulary of {model.vocab_size}")


def _row(request: GenerationRequest, index: int, model: EngineModel, mailbox: _Mailbox, is_streaming: bool) -> Row:
    params = request.params
    text = None
    if request.detokenize or params.stop_strings:
        decode = partial(model.decode, skip_special_tokens=params.skip_special_tokens)
        text = CompletionText(decode, request.token_ids, params)
    budget = min(params.max_tokens, model.max_model_len - len(request.token_ids))
    return Row(request, index, budget, model.ends, mailbox, text, is_streaming)


class _Mailbox:
    """Samples of one request between the worker's steps and the task that takes them; event loop only.

    What is not taken yet is merged sample by sample, so a slow reader costs no more memory than its completion.
    """

    def __init__(self, samples: int) -> None:
        self._unfinished = samples
        self._pending: dict[int, Sample] = {}
        self._error: ModelError | None = None
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether there is something to take, now or later."""
        return bool(self._unfinished or self._pending or self._error)

    def put(self, sample: Sample) -> None:
        """Keep a sample for the next :meth:`take`."""
        known = self._pending.get(sample.index)
        self._pending[sample.index] = sample if known is None else _joined(known, sample)
        self._unfinished -= sample.finish_reason is not None
        self._changed.set()

    def fail(self, error: ModelError) -> None:
        """End the request with an error, after what has arrived so far."""
        self._error = error
        self._changed.set()

    async def take(self) -> list[Sample]:
        """Wait for samples and return them ordered by index. Raises the error that ended the request."""
        await self._changed.wait()
        if not self._pending and self._error is not None:
            raise self._error
        samples = [self._pending[index] for index in sorted(self._pending)]
        self._pending.clear()
        if self._error is None:
            self._changed.clear()
        return samples


def _joined(older: Sample, newer: Sample) -> Sample:
    """Return two consecutive parts of one sample as one."""
    return Sample(
        index=older.index,
        token_ids=older.token_ids + newer.token_ids,
        text=None if newer.text is None else (older.text or "") + newer.text,
        finish_reason=newer.finish_reason,
        stop_reason=newer.stop_reason,
        cumulative_logprob=newer.cumulative_logprob,
        logprobs=None if newer.logprobs is None else (older.logprobs or []) + newer.logprobs,
    )
