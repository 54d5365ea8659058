"""A container by hand: an image's file system in namespaces of its own, with no network but loopback.

As under Docker, the command is process 1, runs as the image's user with the image's environment and nothing else, and
finds a /dev/shm of the given size. As under `docker run --read-only`, the file system cannot be written, but for /tmp
and the user's home, which are empty at the start. When process 1 ends, the kernel ends the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.stack import descendants, parent_of

_INSIDE = """
set -eu
root=$1 shm=$2 user=$3 dir=$4; shift 4
ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=1777 home "$root/var/lib/llm-service"
mount -t tmpfs -o mode=755 devices "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o "mode=1777,size=$shm" shm "$root/dev/shm"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
exec chroot --userspec="$user" --groups= "$root" /usr/bin/env --ignore-environment --chdir="$dir" "$@"
"""
_ASK = """
import sys, urllib.error, urllib.request
method, url = sys.argv[1:]
body = sys.stdin.buffer.read() or None
request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=300)
except urllib.error.HTTPError as exc:
    answer = exc
print(answer.status if hasattr(answer, "status") else answer.code)
print(answer.read().decode())
"""
READY_LIMIT_S = 180.0  # the evaluator's
STOP_LIMIT_S = 100.0


@dataclass
class Container:
    """A running container; ``pid`` is its process 1, as this machine sees it."""

    process: subprocess.Popen[bytes]
    pid: int
    log: Path

    @staticmethod
    def start(root: Path, config: dict[str, Any], log: Path, shm: str = "64m", **settings: str) -> Container:
        """Start the command of an image's Docker configuration in its mounted file system."""
        environ = [*config["Env"], *(f"{name}={value}" for name, value in settings.items())]
        user = _numeric_user(root, config.get("User") or "root")
        command = ["unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--", "sh", "-c", _INSIDE]
        command += ["sh", str(root), shm, user, config["WorkingDir"], *environ, *config["Cmd"]]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={"PATH": _PATH}
            )
        container = Container(process, 0, log)
        container.wait_for(lambda: bool(descendants(process.pid)), 30, "started")
        (container.pid,) = (pid for pid in descendants(process.pid) if parent_of(pid) == process.pid)
        return container

    def wait_ready(self) -> None:
        """Wait for the evaluator's health check, as long as the evaluator does."""
        self.wait_for(lambda: "ready" in self.text() and self.is_ready(), READY_LIMIT_S, "ready")

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/")[0] == 200
        except subprocess.CalledProcessError:
            return False

    def wait_for(self, condition: Any, timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended before it was {what}:\n{self.text()[-4000:]}"
            assert time.monotonic() < deadline, f"not {what} within {timeout_s:.0f} s:\n{self.text()[-4000:]}"
            time.sleep(0.5)

    def ask(self, method: str, path: str, body: Any = None, port: int = 8000) -> tuple[int, str]:
        """Ask from inside the container's network, with a program of this machine."""
        done = subprocess.run(
            [*self._in("--net"), sys.executable, "-c", _ASK, method, f"http://127.0.0.1:{port}{path}"],
            input=b"" if body is None else json.dumps(body).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=320,
        )
        status, _, text = done.stdout.decode().partition("\n")
        return int(status), text.removesuffix("\n")

    def predict(self, prompt: Any, **options: Any) -> Any:
        """The answer, or the answers, of ``/predict``."""
        status, text = self.ask("POST", "/predict", {"prompt": prompt, **options})
        assert status == 200, text
        return json.loads(text)["response"]

    def run_inside(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program of the image beside the service, as `docker exec` does."""
        inside = self._in("--mount", "--net", "--pid", "--ipc", f"--root=/proc/{self.pid}/root")
        return subprocess.run([*inside, *command], capture_output=True, text=True, timeout=60, check=False)

    def interfaces(self) -> list[str]:
        """The container's network interfaces."""
        shown = subprocess.run([*self._in("--net"), "ip", "-json", "link"], check=True, capture_output=True, timeout=30)
        return [link["ifname"] for link in json.loads(shown.stdout)]

    def users(self) -> set[int]:
        """The user ids of all its processes."""
        return {Path(f"/proc/{pid}").stat().st_uid for pid in descendants(self.process.pid)}

    def stop(self) -> int:
        """Stop it as `docker stop` does, and return its exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout=STOP_LIMIT_S)

    def kill(self) -> None:
        """End it at once, whatever it does: with its process 1 all others in it go."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(timeout=30)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _in(self, *namespaces: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", *namespaces, "--"]


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _numeric_user(root: Path, user: str) -> str:
    """``uid:gid`` as the image's own list of users says."""
    for line in (root / "etc" / "passwd").read_text().splitlines():
        name, _, uid, gid, *_rest = line.split(":")
        if user in (name, uid):
            return f"{uid}:{gid}"
    raise AssertionError(f"the image has no user {user}")
