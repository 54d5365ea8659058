"""CPU time and memory of the service's processes, as Linux counts them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def below(root: int, part: str) -> int:
    """The process below ``root`` with this in its command line; the first, if there are more."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if part in command and pid != root:
            return pid
        waiting += [int(child) for task in (_PROC / str(pid) / "task").iterdir() for child in _children(task)]
    raise LookupError(f"no process with {part!r}")


def cpu_s(pid: int) -> float:
    """CPU seconds of all its threads so far."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    """Resident memory."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Peak:
    """The highest value seen."""

    mib: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


@contextmanager
def memory_peak(pid: int) -> Iterator[Peak]:
    """Look at a process's memory a hundred times a second while the block runs."""
    peak = Peak()

    def look() -> None:
        while not peak.done.wait(0.01):
            peak.mib = max(peak.mib, resident_mib(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        peak.done.set()
        thread.join()


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []
