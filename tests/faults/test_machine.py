"""Machines that lack something: ports, shared memory, open files (F8), a network (F9), a disk to write to (F10).

What changes the machine is done in name spaces of its own, for the service alone; that needs root.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.stack import Ports

pytestmark = pytest.mark.timeout(300)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="name spaces need root")
SMALL_SHM = "mount -t tmpfs -o size=16m tmpfs /dev/shm"
FEW_FILES = "ulimit -n 256"
READ_ONLY_ROOT = "mount -o remount,ro,bind / 2>/dev/null || { mount --rbind / /; mount -o remount,ro,bind /; }"
LOOPBACK_UP = (
    "import fcntl, socket, struct;"
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 1))"  # SIOCSIFFLAGS, IFF_UP
)


def environment(model: Path, ports: Ports, **settings: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    names = {"GATEWAY_PORT": ports.gateway, "TRITON_GRPC_PORT": ports.grpc, "TRITON_METRICS_PORT": ports.metrics}
    return {**kept, **{name: str(port) for name, port in names.items()}, "MODEL_DIR": str(model), **settings}


def no_disk(*needed: Path) -> str:
    """Shell commands for a disk that cannot be written and a folder for temporary files that is full.

    ``needed`` are folders that stay where they are, should they lie below that folder.
    """
    covered = [shlex.quote(str(folder)) for folder in needed if folder.is_relative_to("/tmp")]
    commands = ["mount -t tmpfs tmpfs /mnt"]
    for number, folder in enumerate(covered):
        commands += [f"mkdir /mnt/{number}", f"mount --rbind {folder} /mnt/{number}"]
    commands.append("mount -t tmpfs -o size=64k tmpfs /tmp")
    for number, folder in enumerate(covered):
        commands += [
            f"mkdir -p {folder}",
            f"mount --rbind /mnt/{number} {folder}",
            f"mount -o remount,ro,bind {folder}",
        ]
    return "; ".join([*commands, "head -c 1m /dev/zero >/tmp/full 2>/dev/null || true", READ_ONLY_ROOT])


def refusal(model: Path, before: str = "true", unshare: bool = False, ports: Ports | None = None) -> list[str]:
    """Start the service after a shell command, and return what it says when it does not start."""
    serve = [*(["unshare", "--mount"] if unshare else []), "bash", "-ec", f'{before}; exec "$@"', "-"]
    done = subprocess.run(
        [*serve, sys.executable, "-m", "runtime", "serve"],
        cwd=ROOT,
        env=environment(model, ports or Ports.free()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("variable", ["TRITON_GRPC_PORT", "TRITON_METRICS_PORT"])
def test_a_port_that_is_taken_is_told_in_one_line(default_model: Path, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = Ports.free()
        ports = Ports(free.gateway, port, free.metrics) if "GRPC" in variable else Ports(free.gateway, free.grpc, port)
        (line,) = refusal(default_model, ports=ports)
    assert line.startswith(f"cannot start: {variable}: port {port} is taken by ")
    assert f"(pid {os.getpid()})" in line


@as_root
def test_too_little_shared_memory_is_told_in_one_line(default_model: Path) -> None:
    (line,) = refusal(default_model, SMALL_SHM, unshare=True)
    assert line.startswith("cannot start: shared memory: /dev/shm has 16 MiB free")


def test_too_few_open_files_are_told_in_one_line(default_model: Path) -> None:
    (line,) = refusal(default_model, FEW_FILES)
    assert line.startswith("cannot start: open files: at most 256 files may be open")


@as_root
def test_without_network_and_without_a_disk_to_write_to_it_starts_and_serves(
    default_model: Path, tmp_path: Path, stacks: object
) -> None:
    """Only loopback; read-only files; temporary folder full."""
    stacks.stop()  # type: ignore[attr-defined]
    ports = Ports.free()
    inside = f'{shlex.join([sys.executable, "-c", LOOPBACK_UP])}; {no_disk(ROOT, default_model)}; exec "$@"'
    command = ["unshare", "--net", "--mount", "bash", "-ec", inside, "-", sys.executable, "-m", "runtime", "serve"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        env = environment(default_model, ports, USE_VLLM="false")
        service = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        asked = ask_inside(service, ports, log)
        assert '"response":"' in asked, log.read_text()
    finally:
        service.terminate()
        code = service.wait(120)
    assert code == 0, log.read_text()[-4000:]


def ask_inside(service: subprocess.Popen[bytes], ports: Ports, log: Path) -> str:
    """Send a question from within the service's network, as soon as it is ready."""
    deadline = time.monotonic() + 200
    while "ready after" not in log.read_text(errors="replace"):
        assert service.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)
    ask = (
        'import sys, urllib.request as r; q = r.Request(sys.argv[1], b\'{"prompt": "a", "max_new_tokens": 4}\','
        "{'Content-Type': 'application/json'}); print(r.urlopen(q, timeout=60).read().decode())"
    )
    url = f"http://127.0.0.1:{ports.gateway}/predict"
    inside = ["nsenter", "--net", f"--target={service.pid}", sys.executable, "-c", ask, url]
    return subprocess.run(inside, capture_output=True, text=True, timeout=90, check=True).stdout
