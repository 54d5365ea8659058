"""Runs ``download_model.py`` as people do: a process of its own, with a home that is thrown away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY_LISTENS = "http://127.0.0.1:9"  # the discard port: refused at once, as on a machine without a network
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Run:
    """A run on its way; its two streams are files, so that they can be read at any time."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait_until(self, condition: Callable[[Run], bool]) -> None:
        """Wait for something to happen while the run is on its way; fail if it ends before, or at the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition(self):
            assert self.process.poll() is None, f"ended too early: {self.err.read_text()}"
            assert time.monotonic() < deadline, f"never came to it: {self.err.read_text()}"
            time.sleep(0.02)

    def says(self, text: str) -> bool:
        """Say whether standard error has a text by now."""
        return text in self.err.read_text()

    def finish(self) -> Finished:
        """Wait for the end."""
        code = self.process.wait(timeout=DEADLINE_S)
        return Finished(code, self.out.read_text(), self.err.read_text())


@dataclass(frozen=True)
class Downloader:
    """Starts runs whose home, caches and output are below ``home``; the caller's variables do not reach them."""

    home: Path
    endpoint: str = NOBODY_LISTENS
    environ: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def start(self, *arguments: str | Path, **environ: str) -> Iterator[Run]:
        """Start a run; what is left of it at the end of the block is killed."""
        self.home.mkdir(parents=True, exist_ok=True)
        number = len(list(self.home.glob("*.out")))
        streams = self.home / f"{number}.out", self.home / f"{number}.err"
        with streams[0].open("wb") as out, streams[1].open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "download_model.py"), *map(str, arguments)],
                cwd=self.home,
                env={**self._environ(), **self.environ, **environ},
                stdout=out,
                stderr=err,
            )
        with process:
            try:
                yield Run(process, *streams)
            finally:
                process.kill()

    def run(self, *arguments: str | Path, **environ: str) -> Finished:
        """Run to the end."""
        with self.start(*arguments, **environ) as run:
            return run.finish()

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "MODELSCOPE_CACHE": str(self.home / "modelscope"),
            "HF_HOME": str(self.home / "hf"),
            "MODELSCOPE_ENDPOINT": self.endpoint,
            "HF_ENDPOINT": self.endpoint,
            "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",  # a probe of a network that is not there
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "0",  # a client's retries take half a minute
            "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
        }
