"""The real service as a test sees it: started by its launcher, on ports of its own, and stopped without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 240.0  # two busy cores, a cold disk cache
STOP_S = 120.0


@dataclass(frozen=True)
class Ports:
    """TCP ports of one service."""

    gateway: int
    grpc: int
    metrics: int

    @staticmethod
    def free() -> Ports:
        """Three ports that nobody listens on right now."""
        sockets = [socket.socket() for _ in range(3)]
        try:
            for sock in sockets:
                sock.bind(("127.0.0.1", 0))
            return Ports(*(sock.getsockname()[1] for sock in sockets))
        finally:
            for sock in sockets:
                sock.close()


@dataclass
class Stack:
    """One running service. ``log`` holds everything that it printed."""

    process: subprocess.Popen[bytes]
    ports: Ports
    log: Path
    pids: set[int] = field(default_factory=set)
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=300))

    @staticmethod
    def launch(settings: Mapping[str, str], log: Path, *, root: Path = ROOT, python: str = sys.executable) -> Stack:
        """Start the launcher without waiting for anything. ``settings`` are the service's variables, all of them.

        ``root`` is the project's folder, or a copy of it; ``python`` is the interpreter of its environment.
        """
        ports = Ports.free()
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        environ |= {
            "GATEWAY_PORT": str(ports.gateway),
            "TRITON_GRPC_PORT": str(ports.grpc),
            "TRITON_METRICS_PORT": str(ports.metrics),
            **settings,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, "-m", "runtime", "serve"],
                cwd=root,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Stack(process, ports, log)

    @staticmethod
    def start(settings: Mapping[str, str], log: Path, *, root: Path = ROOT, python: str = sys.executable) -> Stack:
        """Start the service and wait until it is ready."""
        stack = Stack.launch(settings, log, root=root, python=python)
        try:
            stack.wait_ready()
        except BaseException:
            stack.stop()
            raise
        return stack

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Wait for the evaluator's health check to answer 200."""
        self.wait_for(self.is_ready, timeout_s, "ready")
        self.pids |= descendants(self.process.pid)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def triton_metrics(self) -> str:
        """What Prometheus would scrape from Triton."""
        return httpx.get(f"http://127.0.0.1:{self.ports.metrics}/metrics", timeout=30).text

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition; fail with the end of the log if the service ends before, or at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended before it was {what}:\n{self.text()[-4000:]}"
            assert time.monotonic() < deadline, f"not {what} within {timeout_s:.0f} s:\n{self.text()[-4000:]}"
            time.sleep(0.2)

    def predict(self, prompt: str | Sequence[str], **options: Any) -> Any:
        """Ask ``/predict`` and return ``response``; the request must succeed."""
        reply = self.client.post(f"{self.url}/predict", json={"prompt": prompt, **options})
        assert reply.status_code == 200, reply.text
        return reply.json()["response"]

    def info(self) -> dict[str, Any]:
        reply = httpx.get(f"{self.url}/info", timeout=30)
        assert reply.status_code == 200, reply.text
        info: dict[str, Any] = reply.json()
        return info

    def stop(self, first: signal.Signals = signal.SIGTERM) -> int:
        """Stop the service as an operator does and return its exit code; every process of it must be gone."""
        self.pids |= descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(first)
        try:
            return self.process.wait(timeout=STOP_S)
        finally:
            self.client.close()
            self.process.kill()
            left = [pid for pid in self.pids if is_running(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            assert not left, f"processes were left running: {left}\n{self.text()[-4000:]}"


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = parent_of(int(entry.name))
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def parent_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
