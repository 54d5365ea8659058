"""Requests for samples: several completions a prompt, streamed, with log probabilities; and their rows.

Beside the plain conversations of :mod:`gateway.triton.wire`, which answer large batches and are kept lean.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, cast

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

_SLICE = 32  # tokens: with 20 likeliest ones each, one or two milliseconds of reading and writing
# Where the mapping of a token begins: its keys are numbers, those of the objects inside are words, and a quote that is
# part of a text has a backslash before it.
_TOKEN = re.compile(rb'\{"(?=[0-9])')
_NOTHING = len(b"null")  # or an empty list


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


class RawLogprobs(NamedTuple):
    """Log probabilities of a row's new tokens, and the tokens' ids: JSON lists, as the model sent them.

    A long row has megabytes of them, so they are read a slice at a time (:func:`token_slices`).
    """

    positions: bytes | memoryview
    token_ids: bytes | memoryview


class TokenSlice(NamedTuple):
    """Some tokens of a row: log probabilities and ids, one item a token."""

    positions: Sequence[TokenLogprobs]
    token_ids: Sequence[int]


class Piece(NamedTuple):
    """A row, or what is new of it. ``finish_reason`` is empty while it goes on; the last count is of new tokens.

    ``logprobs`` is ``None`` if none were asked for, or there is no new token.
    """

    row: int
    text: str
    finish_reason: str
    num_input_tokens: int
    num_output_tokens: int
    logprobs: RawLogprobs | None = None
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
        # Large answers may come in several responses, as one is read as a whole.
        "partial": wanted.logprobs and not wanted.stream,
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
            _logprobs(raw, len(texts)),
            _errors(raw, len(texts)),
        )
        return [Piece(*row) for row in zip(*columns, strict=True)]
    except (KeyError, ValueError, struct.error) as exc:
        raise WireError(f"a response of the model cannot be read: {exc!r}") from exc


def token_slices(raw: RawLogprobs) -> Iterator[TokenSlice]:
    """Read the log probabilities of a row, some tokens at a time. Raises :class:`WireError`."""
    try:
        token_ids = orjson.loads(raw.token_ids)
        for number, part in enumerate(_parts(raw.positions)):
            first = number * _SLICE
            yield TokenSlice(orjson.loads(part), token_ids[first : first + _SLICE])
    except ValueError as exc:
        raise WireError(f"the model's log probabilities cannot be read: {exc!r}") from exc


def _parts(positions: bytes | memoryview) -> Iterator[bytes]:
    """Cut a JSON list of tokens' mappings into lists of :data:`_SLICE`, the last one shorter."""
    begin = 0
    for token in islice(_TOKEN.finditer(positions), _SLICE, None, _SLICE):
        yield b"[%b]" % _without_brackets(positions[begin : token.start()])
        begin = token.start()
    yield b"[%b]" % _without_brackets(positions[begin:])


def _without_brackets(items: bytes | memoryview) -> bytes:
    return bytes(items).strip(b"[], \t\r\n")  # mappings begin and end with braces


def _logprobs(raw: Mapping[str, bytes], rows: int) -> Sequence[RawLogprobs | None]:
    if "logprobs" not in raw:
        return [None] * rows
    pairs = zip(_views(raw["logprobs"]), _views(raw["token_ids"]), strict=True)
    return [None if len(positions) <= _NOTHING else RawLogprobs(positions, ids) for positions, ids in pairs]


def _views(raw: bytes) -> Sequence[memoryview]:
    """The elements of a BYTES tensor, not copied: all of them together can be hundreds of megabytes."""
    return cast("list[memoryview]", unpack_strings(cast("bytes", memoryview(raw))))  # it slices whatever it is given


def _errors(raw: Mapping[str, bytes], rows: int) -> Sequence[RowError | None]:
    if "error" not in raw:
        return [None] * rows
    return [row_error(item) if item else None for item in unpack_strings(raw["error"])]
