"""A project folder with the real launcher, the real supervisord.conf, and fakes for what they run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import free_ports
from tests.fakes.programs import write_program

ROOT = Path(__file__).resolve().parents[3]
FAKES = Path(__file__).parent / "fakes"
STUB_STAND_IN = f"linked with libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Return when the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether the process is there and has not ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Service:
    """One running launcher and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self.process = process
        self.lines: list[str] = []
        self._output = output
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):  # a terminal ends with an error
            while chunk := os.read(self._output, 1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                self.lines += [line.decode().rstrip("\r") for line in lines]

    def stop_reading(self) -> None:
        """Close the reading end, as `| head` does."""
        os.close(self._output)

    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, seconds: float = 15.0, times: int = 1) -> str:
        """The `times`-th line with this in it."""
        found: list[str] = []

        def there() -> bool:
            found[:] = [line for line in list(self.lines) if re.search(pattern, line)]
            return len(found) >= times

        try:
            wait_for(there, pattern, seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.text()}") from None
        return found[times - 1]

    def pid_of(self, program: str, times: int = 1) -> int:
        """The process id that a program printed when it began, the `times`-th time."""
        return int(self.wait_for_line(rf"^{program} \d+", times=times).split()[1])

    def supervisord(self) -> int:
        return int(self.wait_for_line("supervisord started with pid").split()[-1])

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def wait(self, seconds: float = 20.0) -> int:
        """The exit status; all output is there then."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s\n{self.text()}") from None
        self._reader.join(5)
        return status


class Project:
    """A folder to start services in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = free_ports(3)
        self._running: list[Service] = []
        shutil.copytree(ROOT / "runtime", root / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "supervisord.conf").symlink_to(ROOT / "supervisord.conf")
        _write(root / "gateway" / "__main__.py", (FAKES / "gateway_main.py").read_text())
        _write(root / "model_repository/llm/1/settings.py", (FAKES / "model_settings.py").read_text())
        _write(
            root / "triton/bin/tritonserver", f"#!{sys.executable}\n" + (FAKES / "tritonserver.py").read_text(), 0o755
        )
        for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
            _write(root / "triton/backends/python" / name, "")
        _write(root / "triton/backends/python/triton_python_backend_stub", STUB_STAND_IN, 0o755)
        make_model_folder(root / "model")

    def add_nvidia_mps(self) -> dict[str, str]:
        """Let this machine look as if it had a GPU of NVIDIA's, and give it a daemon; returns what turns that on."""
        _write(self.root / "dev/nvidia0", "")
        devices = self.root / "runtime/devices.py"
        devices.write_text(devices.read_text().replace('DEV = Path("/dev")', f'DEV = Path("{self.root}/dev")'))
        daemon = f"#!{sys.executable}\n" + (ROOT / "tests/fakes/mps_control.py").read_text()
        write_program(self.root / "bin/nvidia-cuda-mps-control", daemon)
        return {"NVIDIA_MPS": "1", "LOG_LEVEL": "DEBUG", "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def environment(self, **changes: str) -> dict[str, str]:
        """What the launcher is started with."""
        return {
            **os.environ,
            "GATEWAY_PORT": str(self.ports[0]),
            "TRITON_GRPC_PORT": str(self.ports[1]),
            "TRITON_METRICS_PORT": str(self.ports[2]),
            "TRITON_SERVER_DIR": str(self.root / "triton"),
            "MODEL_DIR": str(self.root / "model"),
            "USE_VLLM": "false",
            "SHUTDOWN_GRACE_S": "5",
            "WATCHDOG_INTERVAL_S": "0",  # this tritonserver speaks no gRPC
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.root),  # a launcher that is killed leaves its private folder
            **changes,
        }

    def start(self, *arguments: str, output: Callable[[], tuple[int, int]] = os.pipe, **changes: str) -> Service:
        """Run `python -m runtime serve`, or python with other arguments.

        Args:
            output: makes the two ends of what stdout is: where to read, and where the service writes.
            changes: to the environment.
        """
        read_end, write_end = output()
        process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "runtime", "serve"))],
            cwd=self.root,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
        )
        os.close(write_end)
        service = Service(process, read_end)
        self._running.append(service)
        return service

    def close(self) -> None:
        """End what a failed test has left."""
        for service in self._running:
            if service.process.poll() is None:
                service.signal(signal.SIGTERM)
                service.signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    service.process.wait(15)
                service.process.kill()


def make_model_folder(folder: Path) -> None:
    """The smallest folder that passes for a model."""
    _write(folder / "config.json", json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    _write(folder / "tokenizer.json", "{}")
    _write(folder / "tokenizer_config.json", "{}")
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def _write(file: Path, text: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
