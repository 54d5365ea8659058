"""Sampling parameters of one prompt: the allow-list, its checks and its JSON form.

Names and meanings are those of vLLM's ``SamplingParams``; what a request leaves out keeps vLLM's default. Numbers and
booleans may also come as strings (``{"temperature": "0.1"}``), as clients of NVIDIA's vLLM backend send them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .errors import InvalidArgument

_MAX_INT32 = 2**31 - 1
_MAX_SAMPLES = 128  # n: what one prompt may ask for; a larger number is a mistake or an attack
_MAX_LOGPROBS = 20  # vLLM's own default limit (max_logprobs)

Count = Annotated[int, Meta(ge=1, le=_MAX_INT32)]
NonNegative = Annotated[int, Meta(ge=0, le=_MAX_INT32)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Text = Annotated[str, Meta(min_length=1)]


class SamplingParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Validated parameters of one prompt; hashable, so that engines can cache what they derive from it."""

    n: Annotated[int, Meta(ge=1, le=_MAX_SAMPLES)] = 1
    max_tokens: Count = 16
    min_tokens: NonNegative = 0
    temperature: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Meta(ge=-1, le=_MAX_INT32)] = 0
    min_p: Share = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=2.0)] = 1.0
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: tuple[Text, ...] | Text | None = None
    stop_token_ids: tuple[NonNegative, ...] | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logprobs: Annotated[int, Meta(ge=0, le=_MAX_LOGPROBS)] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whatever form they came in."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop


DEFAULT = SamplingParameters()
_FIELDS = {field.name for field in msgspec.structs.fields(SamplingParameters)}


def parse(raw: bytes | str, source: str = "sampling_parameters") -> SamplingParameters:
    """Parse the JSON of one ``sampling_parameters`` item.

    ``source`` names the input in errors. Raises :class:`InvalidArgument` naming the field, its value and what is
    allowed. The result is cached: rows of a batch mostly share a few distinct texts.
    """
    return _parse_cached(raw if isinstance(raw, bytes) else raw.encode(errors="surrogatepass"), source)


@lru_cache(maxsize=4096)
def _parse_cached(raw: bytes, source: str) -> SamplingParameters:
    return from_mapping(decode_json(raw, source), source) if raw.strip() else DEFAULT


def decode_json(raw: bytes, source: str) -> Any:
    """Decode JSON, strictly. Raises :class:`InvalidArgument` naming ``source``."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidArgument(f"{source}: not valid JSON ({exc})") from exc


def from_mapping(fields: Any, source: str) -> SamplingParameters:
    """Check a decoded JSON value and return the parameters. Raises :class:`InvalidArgument`."""
    if not isinstance(fields, dict):
        raise InvalidArgument(f"{source}: must be a JSON object, got {_shown(fields)}")
    for name in fields:
        if name not in _FIELDS:
            raise InvalidArgument(
                f"{source}: unknown or internal parameter {name[:80]!r}; allowed are {', '.join(sorted(_FIELDS))}"
            )
    present = {name: value for name, value in fields.items() if value is not None}
    try:
        return msgspec.convert(present, SamplingParameters, strict=False)
    except msgspec.ValidationError as exc:
        raise InvalidArgument(f"{source}: {_explain(exc, present)}") from exc


def _explain(exc: msgspec.ValidationError, fields: dict[str, Any]) -> str:
    """Turn msgspec's "Expected `float` >= 0.0 - at `$.temperature`" into one that shows the value too."""
    problem, _, path = str(exc).partition(" - at `$.")
    name = path.rstrip("`").split("[")[0].split(".")[0]
    if name not in fields:
        return str(exc)
    return f"'{name}' has value {_shown(fields[name])}. {problem}"


def _shown(value: Any, limit: int = 80) -> str:
    text = msgspec.json.encode(value).decode(errors="replace")
    return text if len(text) <= limit else text[:limit] + "…"
