"""The process that an engine runs in: started in a session of its own, watched, and ended with everything below it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..logs import logger
from . import process_tree

_PACKAGE = Path(__file__).resolve().parent.parent  # the folder "1", a package by its number
_TRACKERS_S = 2.0  # time to tidy up, before what tidies up is ended too
_GONE_S = 20.0  # only a process stuck in the kernel needs longer
_PAUSE_S = 0.02


class WorkerProcess:
    """A running worker. Must be made on a thread that lives as long as it: the kernel ends the worker with it."""

    def __init__(self, factory: str, environ: Mapping[str, str], folders: Sequence[str] = ()) -> None:
        """``factory`` makes the engine (see :mod:`worker_main`); ``environ`` goes on top of this process's own."""
        self._folder = _private_folder()
        self.connection, theirs = socket.socketpair()
        command = [sys.executable, "-m", f"{_PACKAGE.name}.engines.worker_main", str(theirs.fileno()), factory]
        # vLLM's sockets: a killed engine leaves them behind.
        own = {"VLLM_RPC_BASE_PATH": self._folder, **os.environ, **environ}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*command, *folders],
                    cwd=_PACKAGE.parent,
                    env=own,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except BaseException:
            self.connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.pid = self._process.pid
        self._children: list[process_tree.Process] = []

    def note_children(self) -> None:
        """Remember the processes that the engine consists of, now that it is complete."""
        self._children = process_tree.vital_children(self.pid)

    def loss(self) -> str | None:
        """What has ended of the engine, if anything has."""
        status = self._process.poll()
        if status is not None:
            return f"its process {_ended(status)}"
        for child in self._children:
            if not process_tree.is_alive(child):
                return f"its child process {child.pid} has ended"
        return None

    async def wait_ended(self, timeout_s: float) -> bool:
        """Wait for the worker itself to end; whether it has."""
        deadline = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_PAUSE_S)
        return True

    async def end(self) -> None:
        """Kill every process of the engine and wait until all are gone: they hold memory that a successor needs."""
        begun = time.monotonic()
        while left := process_tree.session_members(self.pid):
            elapsed = time.monotonic() - begun
            if elapsed > _GONE_S:
                logger.error("processes %s do not end", [process.pid for process in left])
                break
            if elapsed < _TRACKERS_S:
                left = [process for process in left if not process_tree.tidies_up(process.pid)]
            process_tree.send(left, signal.SIGKILL)
            await asyncio.sleep(_PAUSE_S)
            self._process.poll()
        self._process.poll()
        shutil.rmtree(self._folder, ignore_errors=True)


def _private_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="llm-engine-")
    except OSError:  # a full or read-only disk: sockets need no room
        return tempfile.mkdtemp(prefix="llm-engine-", dir="/dev/shm")


def _ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
