"""One sample of one request on its way through the transformers engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ..errors import ModelError
from ..parameters import SamplingParameters
from .base import GenerationRequest, Sample
from .transformers_text import CompletionText

LogprobEntry = dict[int, dict[str, object]]


class Outlet(Protocol):
    """Where the samples of a row go; its methods run on the event loop."""

    def put(self, sample: Sample) -> None:
        """Take a sample, whole or what is new."""

    def fail(self, error: ModelError) -> None:
        """Take the error that ended the request."""


@dataclass(frozen=True)
class EndTokens:
    """The model's end-of-sequence tokens.

    As in vLLM the tokenizer's own is the ``primary`` one; the ``others`` of the generation config act like the
    request's ``stop_token_ids`` and are named in ``stop_reason``.
    """

    primary: int | None
    others: frozenset[int]

    def stopping(self, params: SamplingParameters) -> frozenset[int]:
        """Return the tokens that end a completion and are named as its stop reason."""
        own = frozenset(params.stop_token_ids or ())
        return own if params.ignore_eos else own | self.others

    def delayed(self, params: SamplingParameters) -> frozenset[int]:
        """Return the tokens that must not come before ``min_tokens``; ``ignore_eos`` changes nothing here."""
        primary = frozenset() if self.primary is None else frozenset((self.primary,))
        return primary | self.others | frozenset(params.stop_token_ids or ())


class Row:
    """State of one sample. The worker thread owns it, but for ``cancelled``, which the event loop sets.

    ``budget`` is the number of tokens it may have: ``max_tokens``, or what the model's length leaves. ``phase`` and
    ``owed`` belong to the queue's accounts.
    """

    def __init__(
        self,
        request: GenerationRequest,
        index: int,
        budget: int,
        ends: EndTokens,
        outlet: Outlet,
        text: CompletionText | None = None,
        is_streaming: bool = False,
    ) -> None:
        self.request = request
        self.params = request.params
        self.index = index
        self.budget = budget
        self.outlet = outlet
        self.token_ids: list[int] = []
        self.finish_reason: str | None = None
        self.cancelled = False
        self.generator: torch.Generator | None = None
        self.delayed = ends.delayed(self.params)
        self.phase: Literal["waiting", "running", "done"] = "waiting"
        self.owed = 0
        self._primary_end = None if self.params.ignore_eos else ends.primary
        self._stopping = ends.stopping(self.params)
        self._text = text
        self._is_streaming = is_streaming
        self._stop_reason: int | str | None = None
        self._logprobs: list[LogprobEntry] = []
        self._cumulative_logprob = 0.0
        self._reported = 0

    @property
    def is_live(self) -> bool:
        """Whether the next step has to produce a token for it."""
        return self.finish_reason is None and not self.cancelled

    @property
    def prefix(self) -> list[int]:
        """Prompt and output so far: what a prefill has to read."""
        return self.request.token_ids + self.token_ids

    @property
    def remaining(self) -> int:
        """How many tokens it may still have."""
        return self.budget - len(self.token_ids)

    def accept(self, token_id: int, logprobs: LogprobEntry | None = None) -> None:
        """Add a generated token, and find out whether it ends the completion."""
        self.token_ids.append(token_id)
        if logprobs is not None:
            self._logprobs.append(logprobs)
            self._cumulative_logprob += float(logprobs[token_id]["logprob"])  # type: ignore[arg-type]
        self._check_end(token_id)
        is_hidden = self.finish_reason == "stop" and not self.params.include_stop_str_in_output
        if self._text is None or is_hidden:  # a stop token is no part of the text
            return
        stop = self._text.push(token_id, len(self.token_ids))
        if stop is not None:
            self.finish_reason, self._stop_reason = "stop", stop

    def _check_end(self, token_id: int) -> None:
        if token_id == self._primary_end:
            self.finish_reason = "stop"
        elif token_id in self._stopping:
            self.finish_reason, self._stop_reason = "stop", token_id
        elif len(self.token_ids) >= self.budget:
            self.finish_reason = "length"

    def report(self) -> Sample | None:
        """Return what the caller is to get after a step: the new part of a stream, else all of it at the end."""
        ended = self.finish_reason is not None
        if not ended and not self._is_streaming:
            return None
        start, self._reported = self._reported, len(self.token_ids)
        with_logprobs = self.params.logprobs is not None
        return Sample(
            index=self.index,
            token_ids=self.token_ids[start:],
            text=None if self._text is None else self._text.release(ended),
            finish_reason=self.finish_reason,
            stop_reason=self._stop_reason,
            cumulative_logprob=self._cumulative_logprob if with_logprobs else None,
            logprobs=self._logprobs[start:] if with_logprobs else None,
        )
