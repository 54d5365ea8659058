"""When and how NVIDIA's MPS control daemon is started, and how the engines find it: by the folder that has its pipes.

A CUDA program that finds no daemon there runs as it does without MPS (``man nvidia-cuda-mps-control``).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from runtime.devices import DEV, nvidia_gpu_present
from runtime.errors import StartError
from runtime.fatal_listener import RUN_DIR_VARIABLE
from runtime.processes import end_with_parent
from runtime.settings import RuntimeSettings
from runtime.triton_command import NOT_FOR_TRITON

PROGRAM = "nvidia-cuda-mps-control"
PIPES_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
LOGS_VARIABLE = "CUDA_MPS_LOG_DIRECTORY"
# In place of the first for NVIDIA_MPS=auto: the model passes it on to engines that share a GPU (engines/mps.py).
OFFER_VARIABLE = "SERVICE_MPS_PIPES"
_EVERYBODYS_PIPES = Path("/tmp/nvidia-mps")  # where a CUDA program looks when nothing names another folder
# The daemon would number the GPUs anew, and the engines name them as they are numbered without it
# (docs.nvidia.com/deploy/mps, CUDA_VISIBLE_DEVICES).
_NOT_FOR_THE_DAEMON = (*NOT_FOR_TRITON, "CUDA_VISIBLE_DEVICES")


def mps_starts(
    settings: RuntimeSettings, environ: Mapping[str, str], dev: Path = DEV, others: Path = _EVERYBODYS_PIPES
) -> bool:
    """Whether this run has a daemon of its own; with ``auto`` where it can have one and there is none already."""
    if settings.nvidia_mps == "auto":
        return mps_problem(environ, dev) is None and not (others / "control").exists()
    return settings.nvidia_mps == "true"


def mps_variables(settings: RuntimeSettings, run_dir: Path) -> dict[str, str]:
    """What the model has to know to use the daemon of this run."""
    folders = _folders(run_dir)
    if settings.nvidia_mps == "auto":
        folders[OFFER_VARIABLE] = folders.pop(PIPES_VARIABLE)
    return folders


def mps_problem(environ: Mapping[str, str], dev: Path = DEV) -> str | None:
    """All that keeps the daemon from being started or used, in one line."""
    problems = []
    if not nvidia_gpu_present(dev):
        problems.append(f"NVIDIA_MPS=1 needs an NVIDIA GPU, and {dev} has none: set it to 0")
    if _program(environ) is None:
        problems.append(
            f"NVIDIA_MPS=1 needs {PROGRAM} on PATH: it comes with the driver, and into a container with the driver "
            "capabilities compute,utility"
        )
    if pipes := environ.get(PIPES_VARIABLE, "").strip():
        problems.append(
            f"NVIDIA_MPS=1 starts a daemon, and {PIPES_VARIABLE}={pipes} names one: set NVIDIA_MPS to 0 to use that one"
        )
    return "; ".join(problems) or None


def run_mps(environ: Mapping[str, str]) -> NoReturn:
    """Become the control daemon, in the foreground. Raises :class:`StartError` where there is no such program."""
    program = _program(environ)
    if program is None:
        raise StartError(f"{PROGRAM} is not on PATH")
    folders = _folders(Path(environ[RUN_DIR_VARIABLE]))
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    if environ.get("LOG_LEVEL", "").strip().upper() != "DEBUG":
        _keep_quiet(Path(folders[LOGS_VARIABLE]) / "daemon.log")
    kept = {name: value for name, value in environ.items() if name not in _NOT_FOR_THE_DAEMON}
    end_with_parent(signal.SIGTERM)
    os.execve(program, [PROGRAM, "-f"], kept | folders)


def _keep_quiet(log: Path) -> None:
    """What it says goes to a file of this run: some ten lines for each CUDA program that comes or goes."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


def _program(environ: Mapping[str, str]) -> str | None:
    return shutil.which(PROGRAM, path=environ.get("PATH", os.defpath))


def _folders(run_dir: Path) -> dict[str, str]:
    return {PIPES_VARIABLE: str(run_dir / "mps"), LOGS_VARIABLE: str(run_dir / "mps-log")}
