"""Brings the output of all programs to the launcher's stdout, whole lines only, whatever kind of file stdout is.

supervisord writes what programs print in pieces as they come; straight to a shared stdout, one program's piece would
land inside another's line. So each program has a pipe of its own, and one thread here puts the lines together. That
thread alone writes to stdout: a stdout that nobody reads holds it up, but not the launcher's handling of signals.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import sys
import threading

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 20  # longer ones are cut: memory stays bounded


class LogPump:
    """Pipes in, lines out."""

    def __init__(self, out_fd: int = 1) -> None:
        self._out_fd = out_fd
        self._selector = selectors.DefaultSelector()
        self._pending: dict[int, bytearray] = {}
        self._write_ends: list[int] = []
        self._thread = threading.Thread(target=self._run, name="log-pump", daemon=True)
        self._own = self.open_source()
        os.set_blocking(self._own, False)

    def open_source(self) -> int:
        """A new pipe's write end. The pump keeps it open until `close_sources`."""
        read_end, write_end = os.pipe()
        self._pending[read_end] = bytearray()
        self._selector.register(read_end, selectors.EVENT_READ)
        self._write_ends.append(write_end)
        return write_end

    def start(self) -> None:
        """Begin to read. Signals must be blocked in the calling thread if they are to reach the main thread only."""
        sys.stdout.flush()  # what was printed before comes before
        self._thread.start()

    def say(self, text: str) -> None:
        """Print a line of the launcher's own. Dropped if stdout has not taken the earlier ones."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._own, f"{text}\n".encode())

    def close_sources(self) -> None:
        """Let go of the write ends that others have inherited by now: the end of those processes ends the pipes."""
        for write_end in self._write_ends:
            if write_end != self._own:
                os.close(write_end)
        self._write_ends = [self._own]

    def finish(self, timeout_s: float) -> None:
        """Write what is left, unless stdout does not take it in time."""
        self.close_sources()
        os.close(self._own)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._pending:
            for key, _ in self._selector.select():
                self._read(key.fd)

    def _read(self, source: int) -> None:
        chunk = os.read(source, _CHUNK)
        pending = self._pending[source]
        pending += chunk
        end = pending.rfind(b"\n") + 1
        if not chunk or len(pending) - end > _LONGEST_LINE:
            end = len(pending)
        if end:
            lines = bytes(pending[:end])
            del pending[:end]
            self._write(lines if lines.endswith(b"\n") else lines + b"\n")
        if not chunk:
            self._selector.unregister(source)
            del self._pending[source]
            os.close(source)

    def _write(self, lines: bytes) -> None:
        left = memoryview(lines)
        with contextlib.suppress(OSError):  # nobody reads any more, or the disk is full: serving goes on without it
            while left:
                left = left[self._write_some(left) :]

    def _write_some(self, piece: memoryview) -> int:
        try:
            return os.write(self._out_fd, piece)
        except BlockingIOError:  # somebody else has made this file non-blocking
            select.select([], [self._out_fd], [])
            return 0
