"""Log lines written by a thread: a reader that stalls must not hold up the event loop, nor each line a system call."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from typing import TextIO

_GATHER_S = 0.02  # lines of this time go out together
_MAX_WAITING = 20_000  # lines; beyond, while nobody reads, they are dropped and counted
_CLOSE_S = 2.0


class LogWriter(logging.Handler):
    """Takes records at once and writes them to ``output`` in order, soon."""

    def __init__(self, output: TextIO) -> None:
        super().__init__()
        self._output = output
        self._waiting: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() >= _MAX_WAITING:
            self._dropped += 1
        else:
            self._waiting.put(record)

    def close(self) -> None:
        """Write what waits, as far as somebody reads it; ``logging`` calls this when the process ends."""
        self._waiting.put(None)
        self._thread.join(timeout=_CLOSE_S)
        super().close()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            time.sleep(_GATHER_S)
            records = [first, *(self._waiting.get() for _ in range(self._waiting.qsize()))]
            if self._dropped:
                records.append(_dropped(self._dropped))
                self._dropped = 0
            self._write("".join([self._line(record) for record in records if record is not None]))
            if None in records:
                return

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + "\n"
        except Exception as exc:  # noqa: BLE001 - one bad record must not end the thread
            return f"a record of {record.name} cannot be shown: {exc!r}\n"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed pipe: serving goes on
            self._output.write(text)
            self._output.flush()


def _dropped(lines: int) -> logging.LogRecord:
    message = "%d lines were dropped, as nobody read them"
    return logging.LogRecord("gateway.log", logging.WARNING, __file__, 0, message, (lines,), None)
