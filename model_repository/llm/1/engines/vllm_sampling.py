"""A prompt's parameters as arguments of vLLM's ``SamplingParams``, and its outputs as samples. Imports no vLLM."""

from __future__ import annotations

from typing import Any

import msgspec

from ..parameters import SamplingParameters, StructuredOutputs
from .base import Sample

_NOT_VLLMS = ("lora_name", "structured_outputs")  # an adapter is an argument of its own; structures need vLLM's class


def sampling_fields(params: SamplingParameters) -> dict[str, Any]:
    """Keyword arguments by vLLM's names, all but the structured outputs."""
    fields = {name: getattr(params, name) for name in params.__struct_fields__ if name not in _NOT_VLLMS}
    fields["stop"] = list(params.stop_strings) or None
    for name in ("stop_token_ids", "allowed_token_ids", "bad_words"):
        fields[name] = list(getattr(params, name) or ()) or None
    fields["logit_bias"] = dict(params.logit_bias or ()) or None
    return fields


def structure_fields(structure: StructuredOutputs) -> dict[str, Any]:
    """Keyword arguments of vLLM's class for structured outputs, which has had several names."""
    wanted = msgspec.structs.asdict(structure)
    wanted["choice"] = list(structure.choice) if structure.choice is not None else None
    return {name: value for name, value in wanted.items() if value is not None}


def sample_of(output: Any, with_text: bool) -> Sample:
    """``output`` is vLLM's ``CompletionOutput``: a whole completion, or what is new of one."""
    return Sample(
        index=output.index,
        token_ids=list(output.token_ids),
        text=output.text if with_text else None,
        finish_reason=output.finish_reason,
        stop_reason=output.stop_reason,
        cumulative_logprob=output.cumulative_logprob,
        logprobs=_plain_logprobs(output.logprobs),
    )


def _plain_logprobs(logprobs: Any) -> list[dict[int, dict[str, Any]]] | None:
    if logprobs is None:
        return None
    return [
        {
            token_id: {"logprob": item.logprob, "rank": item.rank, "decoded_token": item.decoded_token}
            for token_id, item in position.items()
        }
        for position in logprobs
    ]
