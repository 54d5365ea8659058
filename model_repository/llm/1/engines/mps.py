"""NVIDIA's MPS for engines that share a GPU, where the launcher offers a daemon of its own (NVIDIA_MPS=auto).

Not for an engine that has its GPU to itself: there is nobody to compute at the same moment.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..logs import logger

OFFER = "SERVICE_MPS_PIPES"  # the folder of the daemon's pipes; set by runtime/mps_command.py
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_DAEMON_S = 5.0  # it is started just before Triton
_PROBE_S = 60.0  # the first program makes the daemon start its server
# What every CUDA program does first. Exit status 0, or the driver's error (CUresult in cuda.h), at most 255.
_PROBE = """
import ctypes, sys
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
result = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
sys.exit(min(result or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), 255))
"""

Probe = Callable[[Mapping[str, str]], str | None]


def mps_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What engines that share a GPU get in their environment to use the daemon; nothing where none is offered."""
    return {PIPES: environ[OFFER]} if environ.get(OFFER) else {}


def cuda_problem(environ: Mapping[str, str], program: str = _PROBE) -> str | None:
    """What keeps a small CUDA program from running with this environment, in one line."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=dict(environ), capture_output=True, timeout=_PROBE_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as exc:
        return str(exc).splitlines()[0]
    last_line = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    return None if done.returncode == 0 else f"a CUDA program ended with status {done.returncode} {last_line}".strip()


def mps_works(environ: Mapping[str, str], probe: Probe = cuda_problem, wait_s: float = _DAEMON_S) -> bool:
    """Whether a CUDA program runs with this environment, which names a daemon; the log says why not."""
    problem = _no_daemon(Path(environ[PIPES]), wait_s) or probe(environ)
    if problem is None:
        logger.info("the engines of a GPU share it through NVIDIA's MPS")
    else:
        logger.warning("the engines of a GPU compute in turns: NVIDIA's MPS cannot be used: %s", problem)
    return problem is None


def _no_daemon(pipes: Path, wait_s: float) -> str | None:
    """A program that finds no daemon runs without MPS, and so would prove nothing."""
    deadline = time.monotonic() + wait_s
    while not (pipes / "control").exists():
        if time.monotonic() > deadline:
            return f"{pipes} has no daemon's pipe"
        time.sleep(0.05)
    return None
