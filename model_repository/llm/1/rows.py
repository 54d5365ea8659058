"""The types that pass between tensors, service and engines: a call, and its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from .engines.base import Sample
from .errors import InvalidArgument, ModelError
from .parameters import SamplingParameters
from .row_cancellation import CancellableRows

OUTPUT_FLAGS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "return_token_ids",
)


@dataclass(frozen=True)
class OutputFlags:
    """Which outputs were asked for beside text and index; in the order of :data:`OUTPUT_FLAGS`."""

    finish_reason: bool = False
    cumulative_logprob: bool = False
    logprobs: bool = False
    num_input_tokens: bool = False
    num_output_tokens: bool = False
    token_ids: bool = False


@dataclass(frozen=True)
class InferenceCall:
    """One Triton request: N inputs with a parameter set (or what is wrong with it) for each.

    ``inputs`` are UTF-8 texts, or with ``is_chat`` JSON lists of messages, or with ``is_token_ids`` JSON lists of token
    ids. ``echo_input`` puts the prompt's text before the completion. ``caller_id`` is for logs only. ``row_key`` says
    that the rows are single prompts of many callers, and is the name by which one of them can be ended.
    ``on_each_engine`` is the warm-up's: every engine runs every prompt.
    """

    caller_id: str
    inputs: list[bytes]
    is_chat: bool
    params: list[SamplingParameters | InvalidArgument]
    stream: bool = False
    is_token_ids: bool = False
    partial: bool = False
    echo_input: bool = False
    flags: OutputFlags = field(default_factory=OutputFlags)
    row_key: str = ""
    on_each_engine: bool = False
    cancellable_rows: CancellableRows = field(default_factory=CancellableRows, compare=False)

    @property
    def holds_singles(self) -> bool:
        """Whether each row is a request of its own: a call with one row, or one with a ``row_key``."""
        return len(self.inputs) == 1 or bool(self.row_key)

    @property
    def reports_row_errors(self) -> bool:
        """Whether a row's error is put in the ``error`` output; otherwise it fails the request."""
        return len(self.inputs) > 1 or self.partial


class Row(msgspec.Struct):
    """One output row: a finished completion, a streamed piece of one, or an error.

    ``index`` is prompt · n + sample. ``num_output_tokens`` counts this row's ``token_ids``.
    """

    index: int
    text: str = ""
    finish_reason: str = ""
    num_input_tokens: int = 0
    token_ids: list[int] = []
    cumulative_logprob: float = 0.0
    logprobs: list[dict[int, dict[str, Any]]] | None = None
    error: ModelError | None = None

    @staticmethod
    def of_sample(index: int, sample: Sample, text: str, num_input_tokens: int) -> Row:
        return Row(
            index=index,
            text=text,
            finish_reason=sample.finish_reason or "",
            num_input_tokens=num_input_tokens,
            token_ids=sample.token_ids,
            cumulative_logprob=sample.cumulative_logprob or 0.0,
            logprobs=sample.logprobs,
        )

    def append(self, piece: Row) -> None:
        """Take over the next piece of the same completion."""
        self.text += piece.text
        self.token_ids = self.token_ids + piece.token_ids
        self.finish_reason = piece.finish_reason
        self.cumulative_logprob = piece.cumulative_logprob
        if piece.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *piece.logprobs]

    @staticmethod
    def of_error(index: int, error: ModelError) -> Row:
        return Row(index=index, finish_reason="error", error=error)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids)

    def error_json(self) -> bytes:
        """Empty, or ``{"code", "message"}``."""
        if self.error is None:
            return b""
        return msgspec.json.encode({"code": self.error.code, "message": self.error.message})

    def logprobs_json(self) -> bytes:
        return b"null" if self.logprobs is None else msgspec.json.encode(self.logprobs)

    def token_ids_json(self) -> bytes:
        return msgspec.json.encode(self.token_ids)
