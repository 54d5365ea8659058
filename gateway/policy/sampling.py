"""Sampling parameters: the service's defaults, a request's wishes, and the JSON the model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import BadValue
from gateway.settings import SamplingSettings

_MAX_INT32 = 2**31 - 1


@dataclass(frozen=True)
class SamplingOptions:
    """What one request asks for; ``None`` keeps the service's default."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    ignore_eos: bool = False

    def check(self) -> None:
        """Raise :class:`BadValue` naming the field, its value and what is allowed. NaN is never allowed."""
        _within("max_new_tokens", self.max_new_tokens, 1, _MAX_INT32)
        _within("temperature", self.temperature, 0.0, 2.0)
        _above("top_p", self.top_p, 0.0, 1.0)
        _within("top_k", self.top_k, -1, _MAX_INT32)
        _above("repetition_penalty", self.repetition_penalty, 0.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)


class SamplingEncoder:
    """Serializes the parameters of one request, once for each distinct token budget."""

    def __init__(self, settings: SamplingSettings, options: SamplingOptions) -> None:
        self._shared = _merge(settings, options)
        self._encoded: dict[int, bytes] = {}

    def encode(self, max_tokens: int) -> bytes:
        """The JSON for prompts with this budget; the same object for the same budget."""
        found = self._encoded.get(max_tokens)
        if found is None:
            found = self._encoded[max_tokens] = orjson.dumps({"max_tokens": max_tokens, **self._shared})
        return found


def _merge(settings: SamplingSettings, options: SamplingOptions) -> dict[str, Any]:
    merged: dict[str, Any] = {
        name: getattr(settings, name) if getattr(options, name) is None else getattr(options, name)
        for name in ("temperature", "top_p", "top_k", "repetition_penalty", "frequency_penalty")
    }
    if options.ignore_eos:
        # The stop strings are the model's end markers: where they shall not end the answer, they must not be sent.
        merged["ignore_eos"] = True
    elif settings.stop:
        merged["stop"] = settings.stop
    return merged


def _within(name: str, value: float | None, lowest: float, highest: float) -> None:
    if value is not None and not lowest <= value <= highest:
        raise BadValue(f"{name} has value {value}; allowed are {lowest} to {highest}")


def _above(name: str, value: float | None, limit: float, highest: float) -> None:
    if value is not None and not limit < value <= highest:
        raise BadValue(f"{name} has value {value}; allowed is more than {limit} up to {highest}")
