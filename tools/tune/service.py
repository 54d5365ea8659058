"""One running service for one trial: started by its own launcher, on free ports, and gone afterwards in any case."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.errors import ToolError
from tools.evaluate.service import ROOT, wait_healthy

STOP_S, STOP_AT_ONCE_S = 45.0, 20.0
PORTS = ("GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
PR_SET_PDEATHSIG = 1


class TrialFailed(ToolError):
    """The service did not start, or did not answer: this trial is lost, the search goes on."""


@contextlib.contextmanager
def running_service(
    command: list[str], settings: Mapping[str, str], log: Path, ready_timeout_s: float
) -> Iterator[str]:
    """Start the service, yield its address when it is ready, stop it. Raises :class:`TrialFailed`."""
    ports = dict(zip(PORTS, map(str, _free_ports(len(PORTS))), strict=True))
    environ = {**os.environ, **settings, **ports}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_the_parent,  # noqa: PLW1509 - there is no other thread when a trial starts
        )
    try:
        url = f"http://127.0.0.1:{ports['GATEWAY_PORT']}"
        wait_healthy(url, ready_timeout_s, lambda: _check_alive(process, log))
        yield url
    finally:
        _stop(process)


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        reason = next((line for line in lines if line.startswith("cannot start:")), lines[-1])
        raise TrialFailed(f"the service ended with {process.returncode}: {reason[:200]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the service: in order, then at once, then by force."""
    for patience_s in (STOP_S, STOP_AT_ONCE_S):
        if process.poll() is None:
            process.terminate()  # the launcher drains at the first, and ends everything at once at the second
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience_s)
    if process.poll() is None:
        for pid in [*_descendants(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _descendants(pid: int) -> list[int]:
    """All processes below one; the launcher takes in those whose parents have died."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _end_with_the_parent() -> None:
    """Let a killed search take its service along: the launcher gets a SIGTERM when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
