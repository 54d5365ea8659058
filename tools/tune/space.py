"""The search space: a TOML file (or the same as JSON) with the service's variables.

[fixed]                               # the same in every trial
BATCH_MODE = 1
[search]                              # tried out
VLLM_MAX_NUM_SEQS = [64, 128, 256]                                  # one of these
MAX_NEW_TOKENS = {low = 48, high = 96, step = 8}                    # a range
VLLM_MAX_NUM_BATCHED_TOKENS = {low = 1024, high = 16384, log = true}
[start]                               # optional: the values of the first trial
VLLM_MAX_NUM_SEQS = 256
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tools.errors import UsageError

Value = str | int | float | bool
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_TAKEN = ("GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
_YES = ("1", "true", "yes", "on", "y")
_NO = ("0", "false", "no", "off", "n")
_RANGE_KEYS = {"low", "high", "step", "log"}


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]

    def suggest(self, trial: Any, name: str) -> Value:
        """Ask Optuna for a value."""
        value: Value = trial.suggest_categorical(name, list(self.values))
        return value


@dataclass(frozen=True)
class Range:
    """A number between two, both included."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def suggest(self, trial: Any, name: str) -> Value:
        """Ask Optuna for a value; whole numbers where the bounds and the step are."""
        if all(isinstance(number, int) for number in (self.low, self.high, self.step or 1)):
            return int(trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log))
        return round(float(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)), 6)


@dataclass(frozen=True)
class Space:
    """What is fixed, what is searched, and where the search begins."""

    fixed: dict[str, Value]
    search: dict[str, Choice | Range]
    start: dict[str, Value]

    def suggest(self, trial: Any) -> dict[str, Value]:
        """The searched variables of one trial."""
        return {name: parameter.suggest(trial, name) for name, parameter in self.search.items()}

    def combinations(self) -> Iterator[dict[str, Value]]:
        """All settings, one by one, if every variable has a list of values; else none."""
        choices = [one.values for one in self.search.values() if isinstance(one, Choice)]
        if len(choices) == len(self.search):
            for values in product(*choices):
                yield dict(zip(self.search, values, strict=True))

    def fingerprint(self) -> str:
        """A text that is another one for another space."""
        return hashlib.sha256(repr((sorted(self.fixed.items()), sorted(self.search.items()))).encode()).hexdigest()


def read_space(file: Path) -> Space:
    """Read a search space. Raises :class:`UsageError` naming file and variable."""
    tables = _parsed(file)
    unknown = sorted(set(tables) - {"fixed", "search", "start"})
    if unknown or not all(isinstance(one, dict) for one in tables.values()):
        raise UsageError(f"{file}: only tables [fixed], [search] and [start] are allowed; found {unknown or 'others'}")
    search = {name: _parameter(file, name, value) for name, value in tables.get("search", {}).items()}
    fixed, start = tables.get("fixed", {}), tables.get("start", {})
    for name in [*fixed, *search]:
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise UsageError(f"{file}: {name} cannot be set by a trial")
    for name, value in [*fixed.items(), *start.items()]:
        _check_value(file, name, value)
    if not search or (both := set(fixed) & set(search)) or (strange := set(start) - set(search)):
        reason = "[search] is empty" if not search else f"{sorted(both or strange)} must be in [search] alone"
        raise UsageError(f"{file}: {reason}")
    return Space(fixed, search, start)


def as_text(value: Value) -> str:
    """A value as an environment variable holds it."""
    return ("1" if value else "0") if isinstance(value, bool) else str(value)


def is_on(settings: dict[str, Value], name: str, default: bool) -> bool:
    """A switch, read as the service does. Raises :class:`UsageError` for what the service would refuse."""
    text = as_text(settings.get(name, "")).strip() or as_text(default)
    if text.lower() not in _YES + _NO:
        raise UsageError(f"{name}={text}: 0 or 1")
    return text.lower() in _YES


def _parsed(file: Path) -> dict[str, Any]:
    import tomli

    try:
        text = file.read_text(encoding="utf-8")
        parsed = json.loads(text) if file.suffix == ".json" else tomli.loads(text)
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    except ValueError as exc:  # both kinds of syntax errors are ones
        raise UsageError(f"{file}: {exc}") from exc
    if not isinstance(parsed, dict):
        raise UsageError(f"{file}: not an object")
    return parsed


def _parameter(file: Path, name: str, value: Any) -> Choice | Range:
    if isinstance(value, list) and value:
        for one in value:
            _check_value(file, name, one)
        return Choice(tuple(value))
    if isinstance(value, dict) and {"low", "high"} <= set(value) <= _RANGE_KEYS:
        numbers = [value[key] for key in ("low", "high", "step") if key in value]
        in_order = all(map(_is_number, numbers)) and value["low"] <= value["high"] and value.get("step", 1) > 0
        if in_order and (not value.get("log") or ("step" not in value and value["low"] > 0)):
            return Range(**value)
    raise UsageError(f"{file}: {name} = {value!r}: a list of values, or {{low, high}} with a step or log = true")


def _check_value(file: Path, name: str, value: Any) -> None:
    if not isinstance(value, (str, int, float)) or "\n" in str(value):
        raise UsageError(f"{file}: {name} = {value!r}: a text of one line, a number, true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
