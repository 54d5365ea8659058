"""What is measured, each started alone and stopped without a trace: a context manager with `batch_s`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from benchmarks.errors import PeerFailed
from benchmarks.http_client import run_all
from benchmarks.workload import ROOT, Workload

START_S = 420.0
STOP_S = 90.0
_TOLD_BYTES = 40_000  # of what a failed program said; Triton ends with wide tables


class Peer(Protocol):
    """Something that answers whole batches."""

    name: str

    def __enter__(self) -> Peer: ...

    def __exit__(self, *exc: object) -> None: ...

    def batch_s(self, work: Workload) -> float:
        """Seconds from questions to texts, all at once."""


class Program:
    """A program in a session of its own, whose output goes to a file that is shown when it fails."""

    def __init__(self, command: list[str], environ: Mapping[str, str], **pipes: Any) -> None:
        self.log = tempfile.NamedTemporaryFile("w+b", prefix="benchmark-", suffix=".log")  # noqa: SIM115 - closed in stop
        pipes = {"stdin": subprocess.DEVNULL, "stdout": self.log, **pipes}
        env = {**os.environ, **environ}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=self.log, start_new_session=True, **pipes)

    def failed(self, what: str) -> PeerFailed:
        self.log.seek(0)
        return PeerFailed(f"{what}:\n{self.log.read()[-_TOLD_BYTES:].decode(errors='replace')}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


class Started:
    """The common part of peers that are programs."""

    _program: Program

    def __exit__(self, *exc: object) -> None:
        self._program.stop()

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Stop the program again if its start fails or is interrupted: nobody else will."""
        try:
            yield
        except BaseException:
            self._program.stop()
            raise

    def _wait_until_up(self, url: str) -> None:
        """Return when the address answers 200. Raises :class:`PeerFailed` with what the program said."""
        deadline = time.monotonic() + START_S
        with self._starting():
            while not _answers(url):
                if self._program.process.poll() is not None:
                    raise self._program.failed("ended before it was ready")
                if time.monotonic() > deadline:
                    raise self._program.failed(f"not ready within {START_S:.0f} s")
                time.sleep(0.1)


def _answers(url: str) -> bool:
    # A proxy for the way out must not stand before a service on the same machine.
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(urllib.error.URLError, OSError), without_proxy.open(url, timeout=5):
        return True
    return False


class OfflinePeer(Started):
    """vLLM in a process of its own, asked in one of the ways of :mod:`benchmarks.offline`."""

    way = "texts"

    def __init__(self, name: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.name = name
        self._first = {"options": dict(options), "way": self.way}
        self._environ = environ

    def __enter__(self) -> OfflinePeer:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._program = Program([sys.executable, "-m", "benchmarks.offline"], self._environ, **pipes)
        with self._starting():
            self._tell(self._first)
        return self

    def batch_s(self, work: Workload) -> float:
        return float(self._tell({"chats": work.chats, "sampling": work.sampling})["seconds"])

    def _tell(self, job: Any) -> Any:
        process = self._program.process
        stdin: IO[str] | None = process.stdin
        stdout: IO[str] | None = process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise self._program.failed(f"{self.name} ended")
        return json.loads(line)

    def __exit__(self, *exc: object) -> None:
        process = self._program.process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        super().__exit__(*exc)


class TokenIdsPeer(OfflinePeer):
    """``LLM.generate`` fed as the service feeds its engines."""

    way = "token_ids"


class InProcessPeer(OfflinePeer):
    """``AsyncLLM`` called in its own process."""

    way = "async"

    def clients_s(self, work: Workload, clients: int) -> tuple[float, list[float]]:
        """Seconds for all questions by so many callers with one each, and for every single one."""
        told = self._tell({"chats": work.chats, "sampling": work.sampling, "clients": clients})
        return told["seconds"], told["each"]


@dataclass(frozen=True)
class Server:
    """A server of somebody else's, to be put beside ours."""

    url: str
    model: str


class UrlPeer:
    """Any server with OpenAI's API: as many requests at once as there are questions."""

    def __init__(self, name: str, url: str, model: str) -> None:
        self.name = name
        self.url = url
        self._model = model

    def __enter__(self) -> UrlPeer:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def batch_s(self, work: Workload) -> float:
        return self.clients_s(work, len(work.questions))[0]

    def clients_s(self, work: Workload, clients: int) -> tuple[float, list[float]]:
        """Seconds for all questions by so many clients with one each, and for every single one."""
        bodies = [{"model": self._model, "messages": messages, **work.sampling} for messages in work.chats]
        return run_all(self.url, "/v1/chat/completions", bodies, clients)


class ApiServerPeer(Started, UrlPeer):
    """vLLM's own server. Not by `vllm serve`, which the CPU build cannot run; it is the same server."""

    def __init__(self, name: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        (self._port,) = free_ports(1)
        super().__init__(name, f"http://127.0.0.1:{self._port}", "served")
        self._arguments = arguments
        self._environ = environ

    def __enter__(self) -> ApiServerPeer:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--served-model-name", "served"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), *self._arguments]
        self._program = Program(command, self._environ)
        self._wait_until_up(f"{self.url}/health")
        return self

    __exit__ = Started.__exit__


class ProjectPeer(Started):
    """This service, by its launcher. A batch is one request to `/predict`."""

    def __init__(self, name: str, settings: Mapping[str, str]) -> None:
        self.name = name
        variables = ("GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT")
        ports = dict(zip(variables, free_ports(len(variables)), strict=True))
        self.url = f"http://127.0.0.1:{ports['GATEWAY_PORT']}"
        self._settings = {**{variable: str(port) for variable, port in ports.items()}, **settings}
        self.start_s = 0.0

    def __enter__(self) -> ProjectPeer:
        began = time.perf_counter()
        self._program = Program([sys.executable, "-m", "runtime", "serve"], self._settings)
        self._wait_until_up(f"{self.url}/")
        self.start_s = time.perf_counter() - began
        return self

    @property
    def pid(self) -> int:
        """The launcher's."""
        return self._program.process.pid

    def batch_s(self, work: Workload) -> float:
        return run_all(self.url, "/predict", [work.predict_body], 1)[0]

    def clients_s(self, work: Workload, clients: int) -> tuple[float, list[float]]:
        """Seconds for all questions by so many clients with one each, and for every single one."""
        bodies = [{**work.predict_body, "prompt": question} for question in work.questions]
        return run_all(self.url, "/predict", bodies, clients)


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens on right now."""
    with contextlib.ExitStack() as stack:  # all open at once, else the system may give one of them twice
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(server.getsockname()[1]) for server in servers]


def default_model() -> Path:
    """MODEL_DIR, the course's model, or the bundled one."""
    shared = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    choices = [Path(os.environ.get("MODEL_DIR") or "-"), shared / "models/course-qa", ROOT / "models/bundled__smollm2"]
    for folder in choices:
        if (folder / "config.json").is_file():
            return folder
    raise PeerFailed("no model: set MODEL_DIR, or run `make serve` once")
