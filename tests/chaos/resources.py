"""What the processes of a service hold together: memory, descriptors, threads, shared memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.e2e.stack import Stack, descendants, is_running
from tests.faults.victims import shared_memory

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """One moment. ``private_mib`` and ``rss_mib`` are sums over all processes; ``shm`` counts files."""

    seconds: float
    processes: int
    rss_mib: float
    descriptors: int
    threads: int
    shm_files: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def usage(stack: Stack, since: float) -> Usage:
    """Look at the launcher and all below it."""
    pids = [pid for pid in {stack.process.pid, *descendants(stack.process.pid)} if is_running(pid)]
    rss = descriptors = threads = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            rss += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            threads += len(os.listdir(f"/proc/{pid}/task"))
    shm = len({file for file in shared_memory(pids) if file.exists()})
    return Usage(round(time.monotonic() - since, 1), len(pids), round(rss / 2**20, 1), descriptors, threads, shm)


class Sampler:
    """Looks every ``every_s`` seconds, in a thread, until stopped."""

    def __init__(self, stack: Stack, every_s: float) -> None:
        self._stack = stack
        self._every_s = every_s
        self._stop = threading.Event()
        self._since = time.monotonic()
        self.samples: list[Usage] = [usage(stack, self._since)]
        self._thread = threading.Thread(target=self._run, name="sampler")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.samples.append(usage(self._stack, self._since))

    def stop(self) -> list[Usage]:
        """The samples, with one of this moment as the last."""
        self._stop.set()
        self._thread.join()
        self.samples.append(usage(self._stack, self._since))
        return self.samples
