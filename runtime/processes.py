"""The process tree under the launcher: adopt what loses its parent, look at it, end it. Linux only, as Triton is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing may be loaded


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that none escapes."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(signum: signal.Signals) -> None:
    """Let the kernel send this process the signal when its parent dies, however it dies. Outlasts an exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)


def children(parent: int) -> list[int]:
    """The living direct children. One that has ended and waits to be reaped does not count."""
    return [pid for pid, its_parent in _parents().items() if its_parent == parent]


def descendants(root: int) -> list[int]:
    """All living processes below `root`."""
    offspring: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        offspring.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        waiting += (below := offspring.get(waiting.pop(), []))
        found += below
    return found


def environment_has(pid: int, assignment: bytes) -> bool:
    """Whether the process was started with this `NAME=value`."""
    try:
        return assignment in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def send(pids: Iterable[int], signum: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def end_all(root: int, grace_s: float, deadline_s: float = 10.0) -> list[int]:
    """End everything below `root`: SIGTERM, and after `grace_s` SIGKILL.

    Only direct children can be reaped here; the others are adopted as their parents go.

    Returns:
        What is left after `deadline_s` more, which only a process stuck in the kernel can be.
    """
    if grace_s:
        send(descendants(root), signal.SIGTERM)
        _wait_until_gone(root, grace_s, None)
    return _wait_until_gone(root, deadline_s, signal.SIGKILL)


def reap() -> dict[int, int]:
    """Collect the children that have ended: process id → exit status (negative: the signal)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _wait_until_gone(root: int, seconds: float, signum: signal.Signals | None) -> list[int]:
    deadline = time.monotonic() + seconds
    while left := descendants(root):
        if time.monotonic() > deadline:
            return left
        if signum:  # again and again: a process may have had a child in the meantime
            send(left, signum)
        time.sleep(0.02)
        reap()
    return []


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir(_PROC):
        if name.isdigit():
            try:
                stat = (_PROC / name / "stat").read_bytes()
            except OSError:  # it has just ended
                continue
            # pid (any name, brackets and blanks too) state parent …
            state, parent = stat.rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                parents[int(name)] = int(parent)
    return parents
