"""Sampling parameters of one prompt: the allow-list, its checks and its JSON form.

Names and meanings are those of vLLM's ``SamplingParams``; what a request leaves out keeps vLLM's default. Numbers and
booleans may also come as strings (``{"temperature": "0.1"}``), as clients of NVIDIA's vLLM backend send them.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from .errors import InvalidArgument

_MAX_INT32 = 2**31 - 1
_MAX_KEPT_BYTES = 4096  # longer ones (a large JSON schema) are rare, and callers must not fill memory with them
_MAX_SAMPLES = 128  # n: what one prompt may ask for; a larger number is a mistake or an attack
_MAX_LOGPROBS = 20  # vLLM's own default limit (max_logprobs)

Count = Annotated[int, Meta(ge=1, le=_MAX_INT32)]
NonNegative = Annotated[int, Meta(ge=0, le=_MAX_INT32)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Text = Annotated[str, Meta(min_length=1)]


class StructuredOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the text must look like; exactly one of the fields. ``json`` is a schema, kept as JSON text."""

    json: Text | None = None
    regex: Text | None = None
    choice: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    grammar: Text | None = None
    json_object: bool | None = None


class SamplingParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Validated parameters of one prompt; hashable, so that engines can cache what they derive from it."""

    n: Annotated[int, Meta(ge=1, le=_MAX_SAMPLES)] = 1
    max_tokens: Count = 16
    min_tokens: NonNegative = 0
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] = 1.0
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
    logit_bias: tuple[tuple[NonNegative, Annotated[float, Meta(ge=-100.0, le=100.0)]], ...] | None = None
    allowed_token_ids: Annotated[tuple[NonNegative, ...], Meta(min_length=1)] | None = None
    bad_words: tuple[Text, ...] | None = None
    structured_outputs: StructuredOutputs | None = None
    lora_name: Text | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whatever form they came in."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @property
    def is_small(self) -> bool:
        """Whether a cache may keep them: their JSON is no longer than a text that :func:`parse` keeps."""
        return len(_encoder.encode(self)) <= _MAX_KEPT_BYTES


_encoder = msgspec.json.Encoder()

DEFAULT = SamplingParameters()
_NESTED = {"logit_bias", "structured_outputs", "stop_token_ids", "allowed_token_ids", "bad_words"}
_FIELDS = {field.name for field in msgspec.structs.fields(SamplingParameters)}


def parse(raw: bytes | str, source: str = "sampling_parameters") -> SamplingParameters:
    """Parse the JSON of one ``sampling_parameters`` item.

    ``source`` names the input in errors. Raises :class:`InvalidArgument` naming the field, its value and what is
    allowed. The result of a text that is not long is cached: rows of a batch mostly share a few distinct texts.
    """
    text = raw if isinstance(raw, bytes) else raw.encode(errors="surrogatepass")
    parse_text = _parse_cached if len(text) <= _MAX_KEPT_BYTES else _parse_cached.__wrapped__
    return parse_text(text, source)


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
    present = {name: _unpacked(name, value) for name, value in fields.items() if value is not None}
    try:
        params = msgspec.convert(_hashable(present), SamplingParameters, strict=False)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise InvalidArgument(f"{source}: {_explain(exc, present)}") from exc
    problem = _structure_problem(params.structured_outputs)
    if problem:
        raise InvalidArgument(f"{source}: {_refused('structured_outputs', present, problem)}")
    return params


def _unpacked(name: str, value: Any) -> Any:
    """Objects and lists may come as JSON texts: Triton's request parameters have no such values."""
    if name in _NESTED and isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(value)
    return value


def _hashable(fields: dict[str, Any]) -> dict[str, Any]:
    """Give mappings a form that can be hashed: pairs for ``logit_bias``, text for a JSON schema."""
    bias, structure = fields.get("logit_bias"), fields.get("structured_outputs")
    changed: dict[str, Any] = {}
    if isinstance(bias, dict):
        changed["logit_bias"] = list(bias.items())
    if isinstance(structure, dict) and isinstance(structure.get("json"), dict):
        changed["structured_outputs"] = {**structure, "json": msgspec.json.encode(structure["json"]).decode()}
    return {**fields, **changed}


def _structure_problem(structure: StructuredOutputs | None) -> str | None:
    """What is wrong with it beyond types; ``None`` if nothing is."""
    if structure is None:
        return None
    given = [name for name in structure.__struct_fields__ if getattr(structure, name) is not None]
    if len(given) != 1:
        return f"Exactly one is needed of {', '.join(structure.__struct_fields__)}"
    if structure.json is None:
        return None
    try:
        schema = decode_json(structure.json.encode(errors="surrogatepass"), "'json'")
    except InvalidArgument as exc:
        return exc.message
    return None if isinstance(schema, dict) else "'json' must be a JSON schema, an object"


def _explain(exc: Exception, fields: dict[str, Any]) -> str:
    """Turn msgspec's "Expected `float` >= 0.0 - at `$.temperature`" into one that shows the value too."""
    problem, _, path = str(exc).partition(" - at `$.")
    name = path.rstrip("`").split("[")[0].split(".")[0]
    if name not in fields:
        return str(exc)
    return _refused(name, fields, problem)


def _refused(name: str, fields: dict[str, Any], problem: str) -> str:
    return f"'{name}' has value {_shown(fields[name])}. {problem}"


def _shown(value: Any, limit: int = 80) -> str:
    try:
        text = msgspec.json.encode(value).decode(errors="replace")
    except RecursionError:  # nested as deeply as could just be decoded
        return "a deeply nested value"
    return text if len(text) <= limit else text[:limit] + "…"
