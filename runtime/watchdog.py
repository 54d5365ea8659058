"""supervisord's program that restarts a Triton whose model is dead or hung. supervisord sees only processes that end.

A probe that waits behind a long queue, a start or a compilation is neither: as long as engines make steps, or one of
them is being started, the model is alive. Restarting means to kill Triton's whole process tree; supervisord starts it
again, and counts: see `fatal_listener` for when the service is given up.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import filterfalse
from typing import TYPE_CHECKING, NoReturn

from runtime import processes
from runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from runtime.triton_probe import Sign

DEAD_LOOKS = 2  # a refusal may come from a Triton that is just ending by itself
AGAIN_S = 1.0  # after a look that has shown no token
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 120.0
CALM_S = 600.0  # without a restart for so long, the next pause is the first one again


@dataclass
class Suspicion:
    """Adds up what the looks show until a restart is due.

    Only time that was watched counts, and of one look no more than ``most_a_look_s``: a machine that slept, or a
    container that was frozen, has not seen the model hang.
    """

    stall_s: float
    most_a_look_s: float
    stalled_for_s: float = 0.0
    dead_looks: int = 0

    def add(self, sign: Sign, watched_s: float) -> str | None:
        """Take a look's sign, and for how many seconds it was awaited; the reason for a restart, if one is due."""
        self.dead_looks = self.dead_looks + 1 if sign.state == "dead" else 0
        if self.dead_looks >= DEAD_LOOKS:
            return "the model's process is gone"
        if sign.state in ("answers", "absent", "starting"):
            self.stalled_for_s = 0.0
            return None
        self.stalled_for_s += min(watched_s, self.most_a_look_s)
        if sign.step_age_s is not None:
            self.stalled_for_s = min(self.stalled_for_s, sign.step_age_s)
        if self.stalled_for_s < self.stall_s:
            return None
        return f"no token for {self.stalled_for_s:.0f} s, though one was asked for, and no engine is at work"


@dataclass
class Pauses:
    """How long to wait after a restart before another one may follow: longer each time."""

    pause_s: float = 0.0
    last: float = 0.0

    def restarted(self, now: float) -> None:
        """A restart was done at ``now`` (monotonic)."""
        calm = now - self.last > CALM_S
        self.pause_s = FIRST_PAUSE_S if calm or not self.pause_s else min(self.pause_s * 2, LONGEST_PAUSE_S)
        self.last = now

    def allow(self, now: float) -> bool:
        """Whether another restart may be done."""
        return now - self.last >= self.pause_s


class Watchdog:
    """Looks at the model again and again."""

    def __init__(self, settings: RuntimeSettings, look: Callable[[], Sign], restart: Callable[[], None]) -> None:
        self._settings = settings
        self._look = look
        self._restart = restart
        self._pauses = Pauses()
        self._suspicion = self._fresh_suspicion()

    def run(self) -> NoReturn:
        """Never returns: supervisord ends this process by a signal."""
        since = time.monotonic()
        while True:
            sign = self._look()
            now = time.monotonic()
            self.judge(sign, now - since, now)
            since = now
            if sign.state == "answers":
                time.sleep(self._settings.watchdog_interval_s)
                since = time.monotonic()  # nobody was waiting meanwhile
            else:
                time.sleep(AGAIN_S)

    def judge(self, sign: Sign, watched_s: float, now: float) -> None:
        """Restart Triton if this look makes that due."""
        reason = self._suspicion.add(sign, watched_s)
        if reason and self._pauses.allow(now):
            print(f"restarting Triton: {reason}", flush=True)
            self._restart()
            self._pauses.restarted(now)
            self._suspicion = self._fresh_suspicion()

    def _fresh_suspicion(self) -> Suspicion:
        # A look that finds nothing takes its time-outs, of the status twice, and some more on a busy machine.
        return Suspicion(self._settings.watchdog_stall_s, 1.25 * (self._settings.watchdog_probe_s + 20.0))


def kill_triton(supervisord: int) -> None:
    """Kill Triton with all its processes; what tidies shared memory up ends by itself after them."""
    for triton in processes.supervised(supervisord, "triton"):
        below = processes.descendants(triton)
        processes.send([triton, *filterfalse(processes.tidies_up, below)], signal.SIGKILL)


def main(environ: Mapping[str, str]) -> int:
    """Run as supervisord's program."""
    processes.end_with_parent(signal.SIGTERM)
    settings = RuntimeSettings.from_env(environ)
    if not settings.watchdog_interval_s:
        print("WATCHDOG_INTERVAL_S=0: nobody watches the model", file=sys.stderr, flush=True)
        while True:
            signal.pause()
    from runtime.triton_probe import TritonProbe

    supervisord = os.getppid()
    probe = TritonProbe(settings.grpc_target, settings.watchdog_probe_s)
    Watchdog(settings, probe.look, lambda: kill_triton(supervisord)).run()
