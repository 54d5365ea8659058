"""The wire contract with the model ``llm``: its tensors, and requests and responses as protobuf messages.

BYTES tensors travel in ``raw_input_contents`` and ``raw_output_contents`` as Triton defines them: each element is its
length as a 32-bit little-endian integer, then the bytes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from tritonclient.grpc import service_pb2

MODEL_NAME = "llm"

# The tensors this process sends and reads; compared with the model's config.pbtxt by a test.
INPUTS = {
    "text_input": "BYTES",
    "messages": "BYTES",
    "sampling_parameters": "BYTES",
    "stream": "BOOL",
    "partial": "BOOL",
    "exclude_input_in_output": "BOOL",
    "return_finish_reason": "BOOL",
    "return_logprobs": "BOOL",
    "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
    "return_token_ids": "BOOL",
}
OUTPUTS = {
    "text_output": "BYTES",
    "index": "UINT32",
    "error": "BYTES",
    "finish_reason": "BYTES",
    "logprobs": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
    "token_ids": "BYTES",
}

_LENGTH = struct.Struct("<I")
_TRUE = b"\x01"
_SWAP = array("I", [1]).tobytes()[0] == 0  # a big-endian machine


class WireError(ValueError):
    """A response does not follow the contract."""


class Completion(NamedTuple):
    """One finished answer. ``finish_reason`` is ``"stop"`` or ``"length"``; counts are tokens."""

    text: str
    finish_reason: str
    num_input_tokens: int
    num_output_tokens: int


class RowError(NamedTuple):
    """Why one row has no text. ``code`` is one of the model's: INVALID_ARG, UNAVAILABLE, INTERNAL, CANCELLED."""

    code: str
    message: str


@dataclass(frozen=True)
class Conversations:
    """N conversations to be answered: ``messages`` and ``sampling_parameters`` are JSON, one item each a row.

    ``request_id`` is the caller's, for the model's log only.
    """

    messages: Sequence[bytes]
    sampling_parameters: Sequence[bytes]
    request_id: str = ""


def encode_request(conversations: Conversations, rows: Sequence[int], row_key: str | None = None) -> Any:
    """One ModelInferRequest for the named rows; the response's ``index`` counts within them.

    More than one row asks for ``partial`` responses, so that what is finished is known when something breaks midway.
    With ``row_key`` the rows are single prompts that have nothing to do with each other.
    """
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME, id=conversations.request_id)
    add_input(request, "messages", [conversations.messages[row] for row in rows])
    parameters = [conversations.sampling_parameters[row] for row in rows]
    add_input(request, "sampling_parameters", parameters[:1] if len(set(parameters)) == 1 else parameters)
    for name in ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"):
        add_flag(request, name)
    if len(rows) > 1:
        add_flag(request, "partial")
    if row_key is not None:
        request.parameters["row_key"].string_param = row_key
    return request


def encode_cancellation(row_key: str, rows: Sequence[int]) -> Any:
    """A request that ends some rows of the request with this key; it needs no engine and is answered at once."""
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME)
    request.parameters["row_key"].string_param = row_key
    request.parameters["cancel_rows"].string_param = ",".join(map(str, rows))
    return request


def encode_info_request() -> Any:
    """A request for the model's status; it needs no engine and is answered at once."""
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME)
    request.parameters["info"].bool_param = True
    return request


def decode_rows(response: Any) -> list[tuple[int, Completion | RowError]]:
    """The rows of one ModelInferResponse, each with its index. Raises :class:`WireError`."""
    try:
        raw = raw_outputs(response)
        texts = unpack_strings(raw["text_output"])
        indices = unpack_integers(raw["index"]) if "index" in raw else [0]
        errors = unpack_strings(raw["error"]) if "error" in raw else [b""] * len(texts)
        completions = zip(
            texts,
            unpack_strings(raw["finish_reason"]),
            unpack_integers(raw["num_input_tokens"]),
            unpack_integers(raw["num_output_tokens"]),
            strict=True,
        )
        rows: list[tuple[int, Completion | RowError]] = []
        for index, error, (text, reason, prompt_tokens, tokens) in zip(indices, errors, completions, strict=True):
            if error:
                rows.append((index, row_error(error)))
            else:
                completion = Completion(text.decode("utf-8", "replace"), reason.decode(), prompt_tokens, tokens)
                rows.append((index, completion))
    except (KeyError, ValueError, struct.error) as exc:
        raise WireError(f"a response of the model cannot be read: {exc!r}") from exc
    return rows


def decode_info(response: Any) -> dict[str, Any]:
    """The model's status from the answer to :func:`encode_info_request`. Raises :class:`WireError`."""
    try:
        raw = raw_outputs(response)
        info = orjson.loads(unpack_strings(raw["text_output"])[0])
    except (KeyError, IndexError, ValueError, struct.error) as exc:
        raise WireError(f"the model's status cannot be read: {exc!r}") from exc
    if not isinstance(info, dict):
        raise WireError("the model's status is no JSON object")
    return info


def pack_strings(items: Sequence[bytes]) -> bytes:
    """Elements → the content of a BYTES tensor."""
    pack = _LENGTH.pack
    return b"".join([part for item in items for part in (pack(len(item)), item)])


def unpack_strings(raw: bytes) -> list[bytes]:
    """The content of a BYTES tensor → its elements. Raises ``ValueError`` or ``struct.error`` if it is cut short."""
    items: list[bytes] = []
    unpack, offset, end = _LENGTH.unpack_from, 0, len(raw)
    while offset < end:
        start = offset + 4
        offset = start + unpack(raw, offset)[0]
        items.append(raw[start:offset])
    if offset != end:
        raise ValueError(f"{offset - end} bytes are missing")
    return items


def unpack_integers(raw: bytes) -> list[int]:
    """The content of a UINT32 tensor (little-endian) → its elements. Raises ``ValueError`` if it is cut short."""
    values = array("I", raw)
    if _SWAP:
        values.byteswap()
    return values.tolist()


def raw_outputs(response: Any) -> dict[str, bytes]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: content for output, content in pairs}


def row_error(raw: bytes) -> RowError:
    fields = orjson.loads(raw)
    if not isinstance(fields, dict):
        raise WireError("a row's error is no JSON object")
    return RowError(str(fields.get("code")), str(fields.get("message")))


def add_input(request: Any, name: str, items: Sequence[bytes]) -> None:
    request.inputs.add(name=name, datatype=INPUTS[name], shape=[len(items)])
    request.raw_input_contents.append(pack_strings(items))


def add_flag(request: Any, name: str) -> None:
    request.inputs.add(name=name, datatype=INPUTS[name], shape=[1])
    request.raw_input_contents.append(_TRUE)
