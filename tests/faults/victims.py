"""The processes of a service by their role, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.stack import Stack, descendants, is_running

STUB = "triton_python_backend_stub"
TRITON = "bin/tritonserver"
GATEWAY = "-m gateway"
WATCHDOG = "-m runtime watchdog"


def command(pid: int) -> str:
    """The command line, empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def found(stack: Stack, part: str) -> list[int]:
    """The living processes of the service with this in their command line."""
    return [pid for pid in descendants(stack.process.pid) if part in command(pid) and is_running(pid)]


def one(stack: Stack, part: str) -> int:
    """The process of which there is one."""
    (pid,) = found(stack, part)
    return pid


def shared_memory(pids: Iterable[int]) -> set[Path]:
    """The files in /dev/shm that these processes have mapped."""
    files: set[Path] = set()
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        files |= {Path(line[line.index("/dev/shm/") :]) for line in maps if "/dev/shm/" in line}
    return {file for file in files if not file.name.endswith("(deleted)")}


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@dataclass(frozen=True)
class TritonTree:
    """Triton with its stub and engines, and the shared memory they have."""

    pids: frozenset[int]
    memory: frozenset[Path]

    @staticmethod
    def of(stack: Stack) -> TritonTree:
        triton = one(stack, TRITON)
        pids = frozenset({triton, *descendants(triton)})
        return TritonTree(pids, frozenset(shared_memory(pids)))

    def left(self) -> list[int]:
        """Those that still run."""
        return [pid for pid in self.pids if is_running(pid)]

    def memory_left(self) -> list[str]:
        """Shared memory that is still there."""
        return sorted(file.name for file in self.memory if file.exists())
