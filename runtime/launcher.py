"""The parent of supervisord: it starts the service, says when it is ready, and sees to it that nothing stays behind.

supervisord keeps the programs running; what it does not do is done here. A first SIGTERM or SIGINT drains (exit status
0), a second one ends everything at once (128 + signal); a program that is beyond help makes the status 1.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtime import processes
from runtime.errors import StartError
from runtime.fatal_listener import GAVE_UP, RUN_DIR_VARIABLE
from runtime.gateway_command import gateway_variables
from runtime.interpreter import Interpreter
from runtime.limits import raise_open_files
from runtime.log_pump import LogPump
from runtime.mps_command import mps_starts, mps_variables
from runtime.preflight import preflight, report
from runtime.readiness import Readiness
from runtime.settings import RuntimeSettings
from runtime.triton_command import ENGINE_STOP_S, LAUNCHER_VARIABLE, RUN_ID_VARIABLE, SHM_DIR, remove_shared_memory
from runtime.triton_runtime import obtain

# Beyond SHUTDOWN_GRACE_S: the gateway ends by itself after it; Triton then unloads the model and stops its engines.
GATEWAY_STOP_MARGIN_S = 5
TRITON_STOP_MARGIN_S = 15
SUPERVISORD_MARGIN_S = 15
LAST_ANSWERS_S = 2.0  # what a second signal leaves the gateway to tell its clients
PASSED_ON_S = 1.0  # supervisord passes a signal on within a second
ORPHAN_GRACE_S = 3.0
LOOK_EVERY_S = 2.0
LOG_SOURCES = ("supervisord", "triton", "gateway", "watchdog", "webui", "mps", "listener")


@dataclass(frozen=True)
class StopTimes:
    """How long supervisord waits after SIGTERM before SIGKILL, in whole seconds."""

    gateway_s: int
    triton_s: int

    @classmethod
    def of(cls, settings: RuntimeSettings) -> StopTimes:
        """From SHUTDOWN_GRACE_S."""
        grace = int(-(-settings.shutdown_grace_s // 1))
        return cls(gateway_s=grace + GATEWAY_STOP_MARGIN_S, triton_s=grace + ENGINE_STOP_S + TRITON_STOP_MARGIN_S)

    @property
    def all_s(self) -> int:
        """One after the other, and supervisord itself."""
        return self.gateway_s + self.triton_s + SUPERVISORD_MARGIN_S


class Launcher:
    """One run of the service."""

    def __init__(self, settings: RuntimeSettings, environ: Mapping[str, str], run_dir: Path) -> None:
        self._settings = settings
        self._environ = environ
        self._run_dir = run_dir
        self._run_id = secrets.token_hex(4)
        self._stop_times = StopTimes.of(settings)
        self._logs = LogPump()
        self._readiness = Readiness(settings, self._logs.say)
        self._supervisord = 0
        self._exit_status: int | None = None
        """supervisord's, once it has ended."""
        self._draining_since: float | None = None
        self._orphans: dict[int, float] = {}
        os.mkfifo(run_dir / GAVE_UP)
        self._gave_up = os.open(run_dir / GAVE_UP, os.O_RDONLY | os.O_NONBLOCK)

    def run(self) -> int:
        """Start, stay, stop.

        Returns:
            The exit status of the service.
        """
        # 1. signals wait until they are asked for; threads started from here on never see them
        watched = {*stop_signals(), signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        processes.adopt_orphans()
        # 2. supervisord, in a session of its own: Ctrl-C in a terminal must reach the launcher alone
        self._supervisord = self._spawn()
        # 3. the lines of all programs, and the one that says ready
        self._logs.start()
        self._readiness.start()
        # 4. until supervisord has ended or somebody is out of patience
        status = self._watch(watched)
        # 5. nothing stays: not a process, not shared memory, not a line
        self._readiness.stop()
        left = processes.end_all(os.getpid(), grace_s=0.0 if status > 1 else LAST_ANSWERS_S)
        if left:
            self._logs.say(f"these processes could not be ended: {left}")
        remove_shared_memory(self._run_id)
        self._logs.finish(timeout_s=5.0)
        return status

    def _spawn(self) -> int:
        sources = {name: self._logs.open_source() for name in LOG_SOURCES}
        has_mps = mps_starts(self._settings, self._environ)
        environ = {
            **self._environ,
            **self._settings.model_variables(),
            **gateway_variables(self._settings, self._environ),
            **self._temporary_folder(),
            **(mps_variables(self._settings, self._run_dir) if has_mps else {}),
            RUN_ID_VARIABLE: self._run_id,
            LAUNCHER_VARIABLE: str(os.getpid()),
            RUN_DIR_VARIABLE: str(self._run_dir),
            "SERVICE_ROOT": str(self._settings.root),
            "SERVICE_PYTHON": sys.executable,
            "SERVICE_GATEWAY_PYTHON": str(self._settings.gateway_python or sys.executable),
            "SERVICE_MPS": str(has_mps).lower(),
            "SERVICE_WEBUI": str(self._settings.web_page).lower(),
            "SERVICE_GATEWAY_STOP_S": str(self._stop_times.gateway_s),
            "SERVICE_TRITON_STOP_S": str(self._stop_times.triton_s),
            **{f"SERVICE_LOG_{name.upper()}": f"/dev/fd/{fd}" for name, fd in sources.items()},
        }
        command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon"]
        command += ["--configuration", str(self._settings.root / "supervisord.conf")]
        if os.geteuid() == 0:
            command += ["--user", "root"]  # what it is; without this supervisord warns at every start
        supervisord = subprocess.Popen(
            command,
            cwd=self._settings.root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sources["supervisord"],
            stderr=sources["supervisord"],
            pass_fds=list(sources.values()),
            start_new_session=True,
            preexec_fn=_in_supervisord,  # noqa: PLW1509 - no thread runs yet
        )
        supervisord.returncode = 0  # reaped with the orphans here, not by subprocess
        self._logs.close_sources()
        return supervisord.pid

    def _temporary_folder(self) -> dict[str, str]:
        """Where nothing can be written to the disk, all programs need another place, and supervisord does not start."""
        return {"TMPDIR": str(self._run_dir)} if self._run_dir.parent == SHM_DIR else {}

    def _watch(self, watched: set[signal.Signals]) -> int:
        while self._exit_status is None:
            got = signal.sigtimedwait(watched, LOOK_EVERY_S)
            self._exit_status = processes.reap().get(self._supervisord)
            if got and got.si_signo != signal.SIGCHLD:
                stop_signal = signal.Signals(got.si_signo)
                if self._draining_since is not None:
                    return self._end_at_once(stop_signal)
                self._drain(stop_signal)
            self._end_orphans()
            if self._draining_since is not None and time.monotonic() - self._draining_since > self._stop_times.all_s:
                self._logs.say(f"not stopped after {self._stop_times.all_s} s: ending everything")
                return 1
        return self._final_status(self._exit_status)

    def _drain(self, stop_signal: signal.Signals) -> None:
        self._draining_since = time.monotonic()
        self._logs.say(
            f"{stop_signal.name}: finishing the running requests, at most {self._settings.shutdown_grace_s:g} s; "
            "once more ends at once"
        )
        processes.send([self._supervisord], signal.SIGTERM)

    def _end_at_once(self, stop_signal: signal.Signals) -> int:
        self._logs.say(f"{stop_signal.name} again: ending everything at once")
        begun = time.monotonic()
        sent = 0
        # The first of these may be the gateway's first, if supervisord has not passed the earlier one on yet.
        while gateway := processes.supervised(self._supervisord, "gateway"):
            elapsed = time.monotonic() - begun
            if elapsed >= LAST_ANSWERS_S:
                break
            if elapsed >= sent * PASSED_ON_S:
                processes.send(gateway, signal.SIGTERM)
                sent += 1
            time.sleep(0.05)
        return 128 + stop_signal

    def _end_orphans(self) -> None:
        """End what a killed program has left behind: an engine without its Triton holds memory that the next needs."""
        now = time.monotonic()
        adopted = [pid for pid in processes.children(os.getpid()) if pid != self._supervisord]
        self._orphans = {pid: self._orphans.get(pid, now) for pid in adopted}
        processes.send([pid for pid, since in self._orphans.items() if since == now], signal.SIGTERM)
        overdue = [pid for pid, since in self._orphans.items() if now - since > ORPHAN_GRACE_S]
        processes.send([pid for pid in overdue if not processes.tidies_up(pid)], signal.SIGKILL)

    def _final_status(self, supervisord_status: int) -> int:
        reason = os.read(self._gave_up, select.PIPE_BUF)
        if reason:
            self._logs.say(f"gave up: {reason.decode()}")
            return 1
        if supervisord_status == 0:
            self._logs.say("stopped")
            return 0
        self._logs.say(f"supervisord ended by itself with status {supervisord_status}")
        return 1


def serve(environ: Mapping[str, str]) -> int:
    """Check, prepare, run.

    Returns:
        The exit status: 0 after a drain, 1 if the service cannot be started or kept running.
    """
    for stop_signal in stop_signals():  # nothing runs yet: stopping now is a clean stop
        signal.signal(stop_signal, _stop_before_start)
    settings, problems = preflight(environ)
    sys.stderr.write(report(problems))
    if settings is None or problems:
        return 1
    try:
        triton = obtain(settings, environ, Interpreter.running())
    except StartError as exc:
        print(f"cannot start: {exc}", file=sys.stderr)
        return 1
    raise_open_files()
    print(f"starting: Triton {triton.version} ({triton.server}), model {settings.model_dir}", flush=True)
    run_dir = _private_dir()
    try:
        return Launcher(settings, environ, run_dir).run()
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def stop_signals() -> list[signal.Signals]:
    """The signals that stop the service: all three, but for those the caller has it ignore, as `nohup` does."""
    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal was closed
    return [signum for signum in asked if signal.getsignal(signum) is not signal.SIG_IGN]


def _private_dir() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="llm-service-"))
    except OSError:  # a read-only or full disk: memory will do, Triton needs it anyway
        return Path(tempfile.mkdtemp(prefix="llm-service-", dir=SHM_DIR))


def _in_supervisord() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    processes.end_with_parent(signal.SIGTERM)


def _stop_before_start(signum: int, frame: object) -> NoReturn:
    raise SystemExit(0)
