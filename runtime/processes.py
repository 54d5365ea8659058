"""The process tree under the launcher: adopt what loses its parent, look at it, end it. Linux only, as Triton is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from itertools import filterfalse
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")
TIDY_UP_S = 2.0
_ENDED = (b"Z", b"X")
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing may be loaded


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that none escapes."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(signum: signal.Signals) -> None:
    """Let the kernel send this process the signal when its parent dies, however it dies. Outlasts an exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)


def children(parent: int) -> list[int]:
    """The living direct children. One that has ended and waits to be reaped does not count."""
    return [pid for pid, (its_parent, state) in _states().items() if its_parent == parent and state not in _ENDED]


def descendants(root: int, ended: bool = False) -> list[int]:
    """All living processes below `root`; with `ended`, also those that are not reaped yet.

    What stands below one that has ended is found either way: of a process with threads the first one may have ended
    while others live, and its children are its children until the last has gone.
    """
    states = _states()
    offspring: dict[int, list[int]] = {}
    for pid, (parent, _) in states.items():
        offspring.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        waiting += (below := offspring.get(waiting.pop(), []))
        found += below
    return [pid for pid in found if ended or states[pid][1] not in _ENDED]


def supervised(supervisord: int, program: str) -> list[int]:
    """The process of a program under supervisord; none while there is none."""
    mark = b"SUPERVISOR_PROCESS_NAME=" + program.encode()
    return [pid for pid in children(supervisord) if environment_has(pid, mark)]


def strays(launcher: int, supervisord: int) -> list[int]:
    """What the launcher has adopted: living processes below it that have lost their place below `supervisord`.

    Told by parents alone: programs that give themselves a title, as vLLM's do, overwrite what /proc shows as their
    environment.
    """
    if supervisord not in children(launcher):
        return []
    kept = {supervisord, *descendants(supervisord)}
    return [pid for pid in descendants(launcher) if pid not in kept]


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


def tidies_up(pid: int) -> bool:
    """Whether it is a resource tracker of Python's multiprocessing.

    Such a one heeds no SIGTERM. It removes the shared memory of the processes that it belongs to, and ends, as soon as
    they have ended; killed together with them it would leave that memory behind.
    """
    try:
        return b"multiprocessing.resource_tracker" in (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def end_all(root: int, grace_s: float, deadline_s: float = 10.0) -> list[int]:
    """End everything below `root`: SIGTERM, after `grace_s` SIGKILL, and last of all what tidies up.

    Only direct children can be reaped here; the others are adopted as their parents go.

    Returns:
        What is left after `deadline_s` more, which only a process stuck in the kernel can be.
    """
    if grace_s:
        send(descendants(root), signal.SIGTERM)
        _wait_until_gone(root, grace_s, lambda left: None)
    _wait_until_gone(root, TIDY_UP_S, lambda left: send(filterfalse(tidies_up, left), signal.SIGKILL))
    return _wait_until_gone(root, deadline_s, lambda left: send(left, signal.SIGKILL))


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


def end_strays(launcher: int, supervisord: int, deadline_s: float = 10.0) -> list[int]:
    """Kill what :func:`strays` finds, and last of all what tidies up; somebody else reaps.

    Returns:
        What is left after `deadline_s`.
    """
    begun = time.monotonic()
    while left := strays(launcher, supervisord):
        waited = time.monotonic() - begun
        if waited > deadline_s:
            return left
        send(left if waited > TIDY_UP_S else filterfalse(tidies_up, left), signal.SIGKILL)
        time.sleep(0.02)
    return []


def _wait_until_gone(root: int, seconds: float, urge: Callable[[list[int]], None]) -> list[int]:
    """Wait for an empty tree. One that has ended counts until it is reaped: its threads may still have children.

    A look takes a while, and a process may change its parent under it: only what two in a row do not see is gone.
    """
    deadline = time.monotonic() + seconds
    empty_looks = 0
    while empty_looks < 2:
        reap()
        left = descendants(root, ended=True)
        empty_looks = 0 if left else empty_looks + 1
        if time.monotonic() > deadline:
            return left
        urge(left)  # again and again: a process may have had a child in the meantime
        if left:
            time.sleep(0.02)
    return []


def _states() -> dict[int, tuple[int, bytes]]:
    """Every process: its parent and its state. Some 20 µs a process: a busy host has thousands."""
    states = {}
    for name in os.listdir(_PROC):
        if name.isdigit():
            # pid (any name, brackets and blanks too) state parent …
            fields = _stat(name).rpartition(b")")[2].split(None, 2)
            if fields:
                states[int(name)] = int(fields[1]), fields[0]
    return states


def _stat(name: str) -> bytes:
    try:
        descriptor = os.open(f"{_PROC}/{name}/stat", os.O_RDONLY)
    except OSError:  # it has just ended
        return b""
    try:
        return os.read(descriptor, 1024)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
