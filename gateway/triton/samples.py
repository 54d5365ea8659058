"""Requests for samples: several completions a prompt, streamed, with log probabilities; and their rows.

Beside the plain conversations of :mod:`gateway.triton.wire`, which answer large batches and are kept lean.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, NamedTuple

import orjson
from tritonclient.grpc import service_pb2

from gateway.triton.wire import (
    MODEL_NAME,
    RowError,
    WireError,
    add_flag,
    add_input,
    raw_outputs,
    row_error,
    unpack_integers,
    unpack_strings,
)

InputKind = Literal["messages", "text", "token_ids"]
TokenLogprobs = Mapping[str, Mapping[str, Any]]
"""Token id (as text) → ``logprob``, ``rank``, ``decoded_token``: the chosen token and the likeliest ones."""


@dataclass(frozen=True)
class SampleRequest:
    """Prompts of one kind, each answered ``n`` times by the same parameters.

    ``inputs`` are JSON lists of messages, texts, or JSON lists of token ids. ``echo`` puts a prompt before its
    completion; not possible with ``stream``. ``request_id`` is the caller's, for the model's log only.
    """

    kind: InputKind
    inputs: Sequence[bytes]
    parameters: Mapping[str, Any]
    n: int = 1
    stream: bool = False
    echo: bool = False
    logprobs: bool = False
    request_id: str = ""

    @property
    def rows(self) -> int:
        return len(self.inputs) * self.n


class Piece(NamedTuple):
    """A row, or what is new of it. ``finish_reason`` is empty while it goes on; the last count is of new tokens.

    ``logprobs`` and ``token_ids`` have one item a new token, if log probabilities were asked for.
    """

    row: int
    text: str
    finish_reason: str
    num_input_tokens: int
    num_output_tokens: int
    logprobs: Sequence[TokenLogprobs] = ()
    token_ids: Sequence[int] = ()
    error: RowError | None = None


def encode_samples(wanted: SampleRequest) -> Any:
    """One ModelInferRequest for all prompts."""
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME, id=wanted.request_id)
    add_input(request, "messages" if wanted.kind == "messages" else "text_input", wanted.inputs)
    if wanted.kind == "token_ids":
        request.parameters["text_input_is_token_ids"].bool_param = True
    add_input(request, "sampling_parameters", [orjson.dumps({**wanted.parameters, "n": wanted.n})])
    flags = {
        "stream": wanted.stream,
        "exclude_input_in_output": not wanted.echo,  # the model's default for texts that are not streamed is to echo
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "return_logprobs": wanted.logprobs,
        "return_token_ids": wanted.logprobs,
    }
    for name, is_set in flags.items():
        if is_set:
            add_flag(request, name)
    return request


def decode_pieces(response: Any) -> list[Piece]:
    """The rows of one ModelInferResponse. Raises :class:`WireError`."""
    try:
        raw = raw_outputs(response)
        texts = [text.decode("utf-8", "replace") for text in unpack_strings(raw["text_output"])]
        columns = (
            unpack_integers(raw["index"]),
            texts,
            [reason.decode() for reason in unpack_strings(raw["finish_reason"])],
            unpack_integers(raw["num_input_tokens"]),
            unpack_integers(raw["num_output_tokens"]),
            _json_column(raw, "logprobs", len(texts)),
            _json_column(raw, "token_ids", len(texts)),
            _errors(raw, len(texts)),
        )
        return [Piece(*row) for row in zip(*columns, strict=True)]
    except (KeyError, ValueError, struct.error) as exc:
        raise WireError(f"a response of the model cannot be read: {exc!r}") from exc


def _json_column(raw: Mapping[str, bytes], name: str, rows: int) -> Sequence[Sequence[Any]]:
    if name not in raw:
        return list(repeat((), rows))
    return [orjson.loads(item) or () for item in unpack_strings(raw[name])]


def _errors(raw: Mapping[str, bytes], rows: int) -> Sequence[RowError | None]:
    if "error" not in raw:
        return [None] * rows
    return [row_error(item) if item else None for item in unpack_strings(raw["error"])]
