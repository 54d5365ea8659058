"""Resources of the machine that the service needs: shared memory and open files."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

MIB = 1 << 20
SHM = Path("/dev/shm")
LEAST_SHM = 32 * MIB  # Triton's tensors
FEWEST_OPEN_FILES = 1024


class FileSystemSize(Protocol):
    """What of `os.statvfs_result` is looked at."""

    @property
    def f_bavail(self) -> int: ...

    @property
    def f_frsize(self) -> int: ...


def shm_problem(statvfs: Callable[[Path], FileSystemSize] = os.statvfs) -> str | None:
    """One line if /dev/shm is too small for Triton, else None. Where vLLM's own processes need more, vLLM says so."""
    try:
        size = statvfs(SHM)
    except OSError as exc:
        return f"{SHM} cannot be used: {exc.strerror}"
    free = size.f_bavail * size.f_frsize
    if free >= LEAST_SHM:
        return None
    return (
        f"{SHM} has {free // MIB} MiB free, Triton needs {LEAST_SHM // MIB} MiB: "
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
