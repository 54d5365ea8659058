"""What the operator sees: lines on standard error, never a secret."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

PROGRESS_EVERY_S = 10.0


def say(text: str) -> None:
    """Write one line to standard error at once."""
    print(f"download_model: {text}", file=sys.stderr, flush=True)


def megabytes(size: float) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:,.1f} MB"


class Redacted:
    """A text stream that shows ``***`` where a secret stands, whoever writes: us, a client's log, a traceback."""

    def __init__(self, stream: TextIO, secrets: Sequence[str]) -> None:
        self._stream = stream
        self._secrets = secrets

    def write(self, text: str) -> int:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def progress_lines(folder: Path) -> Iterator[None]:
    """Say every few seconds how far the folder has grown; on a terminal the clients' own bars are better."""
    if sys.stderr.isatty():
        yield
        return
    finished = threading.Event()
    thread = threading.Thread(target=_report, args=(folder, finished), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _report(folder: Path, finished: threading.Event) -> None:
    before = _bytes_in(folder)
    while not finished.wait(PROGRESS_EVERY_S):
        now = _bytes_in(folder)
        say(f"{megabytes(now)} so far, {megabytes((now - before) / PROGRESS_EVERY_S)} a second")
        before = now


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a half-downloaded file is renamed while we look
            total += file.stat().st_size
    return total
