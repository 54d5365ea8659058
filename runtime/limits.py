"""Resources of the machine that the service needs: shared memory and open files."""

from __future__ import annotations

import importlib.util
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from runtime.devices import gpu_present
from runtime.settings import RuntimeSettings, UseVllm

MIB = 1 << 20
SHM = Path("/dev/shm")
SHM_FOR_VLLM_ON_CPU = 160 * MIB  # its worker's message queue and buffers, asked for at start
SHM_OTHERWISE = 32 * MIB  # Triton's tensors
FEWEST_OPEN_FILES = 1024


class FileSystemSize(Protocol):
    """What of `os.statvfs_result` is looked at."""

    @property
    def f_bavail(self) -> int: ...

    @property
    def f_frsize(self) -> int: ...


def needed_shm_bytes(use_vllm: UseVllm, gpu: bool, vllm_installed: bool) -> int:
    """How much free /dev/shm the backend that will be chosen needs."""
    vllm_on_cpu = not gpu and (use_vllm == "true" or (use_vllm == "auto" and vllm_installed))
    return SHM_FOR_VLLM_ON_CPU if vllm_on_cpu else SHM_OTHERWISE


def shm_problem(settings: RuntimeSettings, statvfs: Callable[[Path], FileSystemSize] = os.statvfs) -> str | None:
    """One line if /dev/shm is too small, else None."""
    needed = needed_shm_bytes(settings.use_vllm, gpu_present(), importlib.util.find_spec("vllm") is not None)
    try:
        size = statvfs(SHM)
    except OSError as exc:
        return f"{SHM} cannot be used: {exc.strerror}"
    free = size.f_bavail * size.f_frsize
    if free >= needed:
        return None
    user = "vLLM on a CPU" if needed == SHM_FOR_VLLM_ON_CPU else "Triton"
    return (
        f"{SHM} has {free // MIB} MiB free, {user} needs {needed // MIB} MiB: "
        "start the container with --shm-size=1g, or make the file system larger"
    )


def open_files_problem(hard_limit: int | None = None) -> str | None:
    """One line if too few files may be open, else None. The soft limit does not count, `raise_open_files` raises it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if hard_limit is None else hard_limit
    if limit == resource.RLIM_INFINITY or limit >= FEWEST_OPEN_FILES:
        return None
    return f"at most {limit} files may be open, {FEWEST_OPEN_FILES} are needed: raise it (ulimit -Hn, --ulimit nofile)"


def raise_open_files() -> None:
    """Raise this process's soft limit to the hard one; what it starts inherits that."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
