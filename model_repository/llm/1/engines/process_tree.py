"""The processes of an engine: all that run in its worker's session, wherever in the tree. Linux only, as Triton is."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_PROC = Path("/proc")
_ENDED = ("Z", "X")
_TRACKER = b"multiprocessing.resource_tracker"
_SPAWNED = b"multiprocessing.spawn"
_TITLED = b"VLLM::"  # the titles that vLLM gives its processes


@dataclass(frozen=True)
class Process:
    """One living process. ``started`` (clock ticks since boot) tells it from a later one with the same id."""

    pid: int
    parent: int
    session: int
    started: int


def find(pid: int) -> Process | None:
    """The process, if it lives; one that has ended and waits to be reaped does not."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # pid (any name, brackets and blanks too) state parent group session …
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in _ENDED:
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def session_members(session: int) -> list[Process]:
    """All living processes of a session, its leader included. Some 20 µs for each process of the machine."""
    pids = (int(name) for name in os.listdir(_PROC) if name.isdigit())
    return [found for found in map(find, pids) if found is not None and found.session == session]


def vital_children(worker: int) -> list[Process]:
    """Those without which an engine cannot work: its core and its workers, but no compilers or trackers.

    Multiprocessing's children have the command line of a spawned process, or, if they were forked, that of the worker.
    """
    own = _command_line(worker)
    found = []
    for member in session_members(worker):
        command = _command_line(member.pid)
        if member.pid != worker and (_SPAWNED in command or _TITLED in command or command == own):
            found.append(member)
    return found


def is_alive(process: Process) -> bool:
    found = find(process.pid)
    return found is not None and found.started == process.started


def tidies_up(pid: int) -> bool:
    """Whether it is a resource tracker of Python's multiprocessing.

    It removes the shared memory of the processes it belongs to, and ends, as soon as they have ended; killed together
    with them it would leave that memory behind.
    """
    return _TRACKER in _command_line(pid)


def send(processes: list[Process], signum: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signum)


def end_own_session() -> NoReturn:
    """End this process and all others of the session that it leads; the trackers tidy up and follow."""
    others = [member for member in session_members(os.getpid()) if member.pid != os.getpid()]
    send([member for member in others if not tidies_up(member.pid)], signal.SIGKILL)
    os._exit(1)


def _command_line(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
