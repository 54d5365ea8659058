"""Why the service cannot start, each in one line for the person who starts it.

StartError
├── BadSetting            an environment variable has a value that cannot be used
└── TritonUnavailable     no tritonserver was found, and none could be assembled
"""

from __future__ import annotations


class StartError(Exception):
    """The service cannot be started; the text says what to change."""


class BadSetting(StartError):
    """An environment variable has a value that cannot be used."""

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"{variable}={' '.join(value.split())}: {allowed}")


class TritonUnavailable(StartError):
    """No tritonserver was found, and none could be assembled."""
