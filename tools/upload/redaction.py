"""Keeps a secret off the terminal, whoever writes: this program, a client's log, a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Redacted:
    """A text stream that shows ``***`` where the secret stands."""

    def __init__(self, stream: TextIO, secret: str) -> None:
        self._stream = stream
        self._secret = secret

    def write(self, text: str) -> int:
        return self._stream.write(text.replace(self._secret, "***"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def without(secret: str) -> Iterator[None]:
    """Show the secret nowhere. What libraries print is no result: it goes to standard error."""
    safe: Any = Redacted(sys.stderr, secret)
    with contextlib.redirect_stderr(safe), contextlib.redirect_stdout(safe):
        yield
