"""Triton requests in, Triton responses out: the only file that knows tensors.

``read_call`` checks a request's shape and the parameters shared by all rows; what is wrong with one row only
(bad JSON of one conversation, say) is left to the row, so that a batch does not lose its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from . import parameters
from .errors import InvalidArgument, ModelError
from .parameters import SamplingParameters
from .row_cancellation import RowCancellation
from .rows import OUTPUT_FLAGS, InferenceCall, OutputFlags, Row

# Request parameters that steer the model itself; all others are sampling parameters.
_INFO_PARAMETER = "info"
_TOKEN_IDS_PARAMETER = "text_input_is_token_ids"
_KEY_PARAMETER = "row_key"
_CANCEL_PARAMETER = "cancel_rows"
_OWN_PARAMETERS = (_INFO_PARAMETER, _TOKEN_IDS_PARAMETER, _KEY_PARAMETER, _CANCEL_PARAMETER)
_MAX_KEY, _MAX_DIGITS = 128, 10
_MAX_CALLER_ID = 4096  # for the log: the gateway's shared requests name up to 64 callers
_SWITCH = {"true": True, "false": False}

Tensors = Mapping[str, Any]
Fields = Mapping[str, Any]  # a request's parameters by their names


def by_name(tensors: Sequence[Any]) -> Tensors:
    """A request's tensors by their names. Triton's own search makes objects of all of them for every name."""
    return {tensor.name(): tensor for tensor in tensors}


def request_parameters(request: Any) -> Fields:
    """Decode a request's parameters. Triton hands them over as one JSON object, or as an empty text."""
    raw: str = request.parameters()
    return dict(parameters.decode_json(raw.encode(), "request parameters")) if raw and raw != "{}" else {}


def wants_info(fields: Fields) -> bool:
    """Whether the request asks for the model's status instead of a generation (request parameter ``info``)."""
    return _switch(fields, _INFO_PARAMETER)


def read_cancellation(fields: Fields) -> RowCancellation | None:
    """The rows that a request wants to be ended (request parameters ``row_key``, ``cancel_rows``), if it does."""
    wished = fields.get(_CANCEL_PARAMETER)
    if wished is None:
        return None
    items = str(wished).split(",")
    if not all(item.isascii() and item.isdigit() and len(item) < _MAX_DIGITS for item in items):
        raise InvalidArgument(f"'cancel_rows' has value {str(wished)[:40]!r}. Allowed are row numbers with commas")
    return RowCancellation(_row_key(fields), [int(item) for item in items])


def _switch(fields: Fields, name: str) -> bool:
    """A request parameter that is true or false, or one of these words; false where it is left out."""
    value = fields.get(name)
    if value is None:
        return False
    wanted = _SWITCH.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(wanted, bool):
        raise InvalidArgument(f"'{name}' has value {str(value)[:40]!r}. Allowed are true and false")
    return wanted


def _row_key(fields: Fields) -> str:
    key = fields.get(_KEY_PARAMETER, "")
    if not isinstance(key, str) or len(key) > _MAX_KEY:
        raise InvalidArgument(f"'row_key' is no text of at most {_MAX_KEY} characters")
    return key


def read_call(request: Any, fields: Fields) -> InferenceCall:
    """Decode one Triton request, whose request parameters are ``fields``.

    Raises :class:`InvalidArgument` for what concerns the request as a whole.
    """
    found = by_name(request.inputs())
    texts, chats = _strings(found, "text_input"), _strings(found, "messages")
    if (texts is None) == (chats is None):
        given = "both were given" if texts is not None else "neither was given"
        raise InvalidArgument(f"exactly one of the inputs 'text_input' and 'messages' is needed, {given}")
    inputs = texts if texts is not None else chats
    assert inputs is not None
    if not inputs:
        raise InvalidArgument(f"'{'messages' if texts is None else 'text_input'}' is empty; at least one is needed")
    stream, partial = _flag(found, "stream") or False, _flag(found, "partial") or False
    row_key = _row_key(fields)
    if row_key and not partial:
        raise InvalidArgument("'row_key' needs the input 'partial': rows that end alone are answered alone")
    return InferenceCall(
        caller_id=_printable(request.request_id()),
        inputs=inputs,
        is_chat=texts is None,
        is_token_ids=_switch(fields, _TOKEN_IDS_PARAMETER) and texts is not None,
        params=_read_parameters(fields, found, len(inputs)),
        stream=stream,
        partial=partial,
        echo_input=_echo_input(found, stream, is_chat=texts is None),
        flags=OutputFlags(*(_flag(found, name) or False for name in OUTPUT_FLAGS)),
        row_key=row_key,
    )


def _printable(caller_id: str) -> str:
    """A caller's name of the request, made fit for one line of a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in caller_id[:_MAX_CALLER_ID])


def _echo_input(inputs: Tensors, stream: bool, *, is_chat: bool) -> bool:
    """Whether the prompt goes before the completion: the default for unstreamed ``text_input``, as NVIDIA's."""
    exclude = _flag(inputs, "exclude_input_in_output")
    if exclude is None:
        return not stream and not is_chat
    if stream and not exclude:
        raise InvalidArgument("'exclude_input_in_output' has value false. With 'stream' only true is allowed")
    return not exclude


def _read_parameters(fields: Fields, inputs: Tensors, rows: int) -> list[SamplingParameters | InvalidArgument]:
    """One item a row; an item that is wrong in a list of N is that row's error, a shared one is the request's."""
    items = _strings(inputs, "sampling_parameters")
    if items is None:
        sampling = {name: value for name, value in fields.items() if name not in _OWN_PARAMETERS}
        return [parameters.from_mapping(sampling, "request parameters")] * rows
    if len(items) not in (1, rows):
        raise InvalidArgument(f"'sampling_parameters' has {len(items)} items; allowed are 1 or {rows}, one a prompt")
    if len(items) == 1:
        return [parameters.parse(items[0])] * rows
    return [_parse_row(item) for item in items]


def _parse_row(item: bytes) -> SamplingParameters | InvalidArgument:
    try:
        return parameters.parse(item)
    except InvalidArgument as exc:
        return InvalidArgument(exc.message)  # as data, without a traceback


def _strings(inputs: Tensors, name: str) -> list[bytes] | None:
    tensor = inputs.get(name)
    if tensor is None:
        return None
    array = tensor.as_numpy()
    if array.ndim != 1:
        raise InvalidArgument(f"'{name}' has shape {list(array.shape)}; allowed is [N]")
    items: list[bytes] = array.tolist()
    return items


def _flag(inputs: Tensors, name: str) -> bool | None:
    tensor = inputs.get(name)
    if tensor is None:
        return None
    array = tensor.as_numpy().reshape(-1)
    if array.size != 1:
        raise InvalidArgument(f"'{name}' has shape {list(tensor.as_numpy().shape)}; allowed is [1]")
    return bool(array[0])


def build_response(rows: Sequence[Row], call: InferenceCall) -> Any:
    """Encode finished rows, or streamed pieces of rows, as one response."""
    tensors = [
        _bytes_tensor("text_output", [row.text.encode("utf-8", "replace") for row in rows]),
        pb_utils.Tensor("index", np.array([row.index for row in rows], dtype=np.uint32)),
    ]
    if call.reports_row_errors:
        tensors.append(_bytes_tensor("error", [row.error_json() for row in rows]))
    flags = call.flags
    if flags.finish_reason:
        tensors.append(_bytes_tensor("finish_reason", [row.finish_reason.encode() for row in rows]))
    if flags.cumulative_logprob:
        values = [row.cumulative_logprob for row in rows]
        tensors.append(pb_utils.Tensor("cumulative_logprob", np.array(values, dtype=np.float32)))
    if flags.logprobs:
        tensors.append(_bytes_tensor("logprobs", [row.logprobs_json() for row in rows]))
    if flags.num_input_tokens:
        counts = [row.num_input_tokens for row in rows]
        tensors.append(pb_utils.Tensor("num_input_tokens", np.array(counts, dtype=np.uint32)))
    if flags.num_output_tokens:
        counts = [row.num_output_tokens for row in rows]
        tensors.append(pb_utils.Tensor("num_output_tokens", np.array(counts, dtype=np.uint32)))
    if flags.token_ids:
        tensors.append(_bytes_tensor("token_ids", [row.token_ids_json() for row in rows]))
    return pb_utils.InferenceResponse(output_tensors=tensors)


def build_info(info_json: bytes) -> Any:
    """Encode the answer to a request for the model's status."""
    index = pb_utils.Tensor("index", np.zeros(1, dtype=np.uint32))
    return pb_utils.InferenceResponse(output_tensors=[_bytes_tensor("text_output", [info_json]), index])


def build_error(error: ModelError) -> Any:
    """Encode the error of a whole request with Triton's code for it."""
    code = getattr(pb_utils.TritonError, error.code, pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def _bytes_tensor(name: str, values: list[bytes]) -> Any:
    return pb_utils.Tensor(name, np.array(values, dtype=np.object_))
