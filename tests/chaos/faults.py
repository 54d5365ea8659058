"""The faults that can be done to a service while it works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.stack import Stack, descendants
from tests.faults.victims import GATEWAY, STUB, TRITON, found


@dataclass(frozen=True)
class Fault:
    """Something that can be done. ``harm`` returns the processes that must go; none if nothing was done."""

    name: str
    harm: Callable[[Stack], list[int]]
    loses_connections: bool = False
    """The one exception from "nothing fails": a killed gateway takes its connections along."""


def _signal(part: str, signum: signal.Signals) -> Callable[[Stack], list[int]]:
    def harm(stack: Stack) -> list[int]:
        victims = found(stack, part)[:1]
        for pid in victims:
            os.kill(pid, signum)
        return victims

    return harm


def _engine(signum: signal.Signals) -> Callable[[Stack], list[int]]:
    def harm(stack: Stack) -> list[int]:
        pids = [engine["pid"] for engine in stack.info()["engines"] if engine.get("pid")]
        if not pids:
            return []
        victims = [pids[-1], *descendants(pids[-1])] if signum is signal.SIGSTOP else [pids[-1]]
        for pid in victims:
            os.kill(pid, signum)
        return victims

    return harm


FAULTS = (
    Fault("kill -9 an engine", _engine(signal.SIGKILL)),
    Fault("stop an engine (a hang)", _engine(signal.SIGSTOP)),
    Fault("kill -9 the stub", _signal(STUB, signal.SIGKILL)),
    Fault("kill -9 tritonserver", _signal(TRITON, signal.SIGKILL)),
    Fault("kill -9 the gateway", _signal(GATEWAY, signal.SIGKILL), loses_connections=True),
)
