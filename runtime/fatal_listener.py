"""supervisord's event listener that ends the service when a program is beyond help. supervisord alone would go on.

A program is given up when supervisord says FATAL (it ended too early, too often), when Triton has ended several times
in a row without having loaded its model, or when it has ended too often within a while, whoever ended it. The second
case is invisible to supervisord: a load may take longer than any sensible `startsecs`. That the model is loaded is seen
at the gRPC port, which Triton opens last. Without its watchdog, or another program that it can spare,
the service goes on.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from runtime.settings import RuntimeSettings

RUN_DIR_VARIABLE = "SERVICE_RUN_DIR"
GAVE_UP = "gave-up"  # the launcher's pipe in that folder: what goes through it needs no room on a disk
FAILED_LOADS = 3  # as many as startretries in supervisord.conf, and one
_TRITON = "triton"
# Without these the service still serves: what their loss means.
_DISPENSABLE = {
    "watchdog": "a hung model will not be noticed",
    "webui": "there is no web page",
    "mps": "the engines of a GPU compute in turns",  # without the daemon CUDA programs run as they always did
}


@dataclass(frozen=True)
class Event:
    """One event of supervisord."""

    name: str
    program: str
    """Empty for events that are not about a program."""


@dataclass
class LoadWatch:
    """Counts the ends of Triton before its model was loaded."""

    loaded: bool = False
    failures: int = 0

    def saw_port_open(self) -> None:
        """The model is loaded: whatever went wrong before is over."""
        self.loaded = True
        self.failures = 0

    def saw_exit(self) -> None:
        """Triton has ended."""
        self.failures += 0 if self.loaded else 1
        self.loaded = False


@dataclass
class RestartWatch:
    """Counts the ends of Triton within the latest ``window_s`` seconds; ``most`` of them are put up with."""

    most: int
    window_s: float
    ends: deque[float] = field(default_factory=deque)

    def saw_exit(self, now: float) -> None:
        """Triton has ended at ``now`` (monotonic)."""
        self.ends.append(now)
        while now - self.ends[0] > self.window_s:
            self.ends.popleft()

    @property
    def too_many(self) -> bool:
        return len(self.ends) > self.most


@dataclass
class Watch:
    """All that is remembered between two events."""

    restarts: RestartWatch
    loads: LoadWatch = field(default_factory=LoadWatch)


def listen(events: BinaryIO, answers: BinaryIO, address: tuple[str, int], watch: Watch) -> str | None:
    """Take supervisord's events until a program is beyond help.

    Returns:
        The reason to give up in one line, or None when supervisord has ended.
    """
    while True:
        answers.write(b"READY\n")
        answers.flush()
        event = read_event(events)
        if event is None:
            return None
        reason = judge(event, watch, address)
        if reason:
            return reason
        answers.write(b"RESULT 2\nOK")
        answers.flush()


def judge(event: Event, watch: Watch, address: tuple[str, int]) -> str | None:
    """The reason to give up, if this event is one."""
    if event.name == "PROCESS_STATE_FATAL" and event.program in _DISPENSABLE:
        loss = _DISPENSABLE[event.program]
        print(f"{event.program} cannot be kept running: {loss}", file=sys.stderr, flush=True)
    elif event.name == "PROCESS_STATE_FATAL":
        return f"{event.program} cannot be kept running: it ended right after its start, again and again"
    elif event.name == "PROCESS_STATE_EXITED" and event.program == _TRITON:
        watch.loads.saw_exit()
        watch.restarts.saw_exit(time.monotonic())
    elif event.name.startswith("TICK") and not watch.loads.loaded and accepts(address):
        watch.loads.saw_port_open()
    if watch.loads.failures >= FAILED_LOADS:
        return f"{_TRITON} ended {watch.loads.failures} times without having loaded its model"
    if watch.restarts.too_many:
        return f"{_TRITON} ended {len(watch.restarts.ends)} times within {watch.restarts.window_s:g} s"
    return None


def read_event(events: BinaryIO) -> Event | None:
    """The next event, or None at the end. A header line gives the length of the payload."""
    header = _fields(events.readline())
    if "len" not in header:
        return None
    payload = _fields(events.read(int(header["len"])).partition(b"\n")[0])
    return Event(header.get("eventname", ""), payload.get("processname", ""))


def accepts(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection(address, timeout=1.0):
            return True
    except OSError:
        return False


def main(environ: Mapping[str, str]) -> int:
    """Run as supervisord's listener; ends supervisord, which is the parent, when a program is given up."""
    settings = RuntimeSettings.from_env(environ)
    supervisord = os.getppid()
    watch = Watch(RestartWatch(settings.triton_max_restarts, settings.triton_restart_window_s))
    reason = listen(sys.stdin.buffer, sys.stdout.buffer, settings.grpc_target, watch)
    if reason:
        give_up(reason, Path(environ[RUN_DIR_VARIABLE]) / GAVE_UP, supervisord)
    return 0


def give_up(reason: str, pipe: Path, supervisord: int) -> None:
    """Tell the launcher why, and end supervisord, whether or not the launcher could be told."""
    try:
        launcher = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # without a reader this fails at once
        os.write(launcher, reason.encode())
        os.close(launcher)
    except OSError as exc:
        print(f"gave up: {reason} (the launcher cannot be told: {exc})", file=sys.stderr, flush=True)
    finally:
        os.kill(supervisord, signal.SIGTERM)


def _fields(line: bytes) -> dict[str, str]:
    return dict(pair.partition(":")[::2] for pair in line.decode(errors="replace").split())
