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
    """Something that can be done. ``harm`` returns whether there was anything to be done to."""

    name: str
    harm: Callable[[Stack], bool]
    loses_connections: bool = False
    """The one exception from "nothing fails": a killed gateway takes its connections along."""


def _signal(part: str, signum: signal.Signals) -> Callable[[Stack], bool]:
    def harm(stack: Stack) -> bool:
        victims = found(stack, part)[:1]
        for pid in victims:
            os.kill(pid, signum)
        return bool(victims)

    return harm


def _engine(signum: signal.Signals) -> Callable[[Stack], bool]:
    def harm(stack: Stack) -> bool:
        pids = [engine["pid"] for engine in stack.info()["engines"] if engine.get("pid")]
        if not pids:
            return False
        for pid in [pids[-1], *descendants(pids[-1])] if signum is signal.SIGSTOP else [pids[-1]]:
            os.kill(pid, signum)
        return True

    return harm


FAULTS = (
    Fault("kill -9 an engine", _engine(signal.SIGKILL)),
    Fault("stop an engine (a hang)", _engine(signal.SIGSTOP)),
    Fault("kill -9 the stub", _signal(STUB, signal.SIGKILL)),
    Fault("kill -9 tritonserver", _signal(TRITON, signal.SIGKILL)),
    Fault("kill -9 the gateway", _signal(GATEWAY, signal.SIGKILL), loses_connections=True),
)
