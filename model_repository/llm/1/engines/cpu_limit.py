"""How much of the CPU this process may use: its cores, or less where its container has a limit.

Linux' control groups tell: version 2 in ``cpu.max`` (``200000 100000``: microseconds in each period, or ``max``),
version 1 in ``cpu.cfs_quota_us`` (-1: none) and ``cpu.cfs_period_us``. A container sees its own group at the root.
"""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cores: int | None = None, cgroup: Path = _CGROUP) -> float:
    """``cores`` (by itself this process's) or the limit, whichever is less: 1.5 is one core and half of another."""
    if cores is None:
        cores = len(os.sched_getaffinity(0))
    limit = _limit(_words(cgroup / "cpu.max"))
    if limit is None:
        limit = _limit(_words(cgroup / "cpu/cpu.cfs_quota_us") + _words(cgroup / "cpu/cpu.cfs_period_us"))
    return float(cores) if limit is None else min(float(cores), limit)


def _limit(words: list[str]) -> float | None:
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
