"""Typed reads of environment variables. Blank means unset; a bad value is one line for the operator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_YES = ("1", "true", "yes", "on", "y")
_NO = ("0", "false", "no", "off", "n")


class SettingsError(ValueError):
    """A variable has a value that is not allowed: one line with variable, value and what is allowed."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={' '.join(value.split())}: {allowed}")


class Environment:
    """Reads variables of ``environ`` by type; every method raises :class:`SettingsError` for a bad value."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def flag(self, name: str, default: bool) -> bool:
        raw = self.text(name)
        if raw is None:
            return default
        if raw.lower() not in _YES + _NO:
            raise SettingsError(name, raw, "0 or 1")
        return raw.lower() in _YES

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of ``choices``, whatever the case it is written in."""
        raw = self.text(name)
        if raw is None:
            return default
        for choice in choices:
            if raw.lower() == choice.lower():
                return choice
        raise SettingsError(name, raw, "one of " + ", ".join(choices))

    def integer(self, name: str, default: int, minimum: int, maximum: int = 2**31 - 1) -> int:
        raw = self.text(name)
        if raw is None:
            return default
        try:
            value = int(raw)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            raise SettingsError(name, raw, f"a whole number from {minimum} to {maximum}")
        return value

    def number(
        self, name: str, default: float, minimum: float, maximum: float, *, above_minimum: bool = False
    ) -> float:
        """A number between both limits; ``above_minimum`` leaves the lower one itself out."""
        raw = self.text(name)
        if raw is None:
            return default
        try:
            value = float(raw)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum or (above_minimum and value == minimum):
            lower = f"above {minimum:g}" if above_minimum else f"from {minimum:g}"
            raise SettingsError(name, raw, f"a number {lower} to {maximum:g}")
        return value

    def words(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A comma separated list; white space around an item and empty items do not count."""
        found = tuple(item.strip() for item in (self.text(name) or "").split(",") if item.strip())
        return found or default
