"""Make the environments of an image, from what its base brings: run by the Dockerfile with the base's Python.

    image_environment.py [--accelerator cpu|cuda]

.venv           the model, and the launcher. A base with vLLM keeps its own vLLM, torch and all they came with: the
                environment sees them, and gets only what is missing. On a base without vLLM it holds the project's
                pinned lists, as after `make venv`.
.venv-gateway   the gateway and download_model.py, from a pinned list: they share no package with the model, so it is
                the same one on every base.
"""

from __future__ import annotations

import argparse
import compileall
import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a file, so that it needs no particular working folder

from runtime.interpreter import Interpreter  # noqa: E402

REQUIREMENTS = ROOT / "requirements"
# As in runtime/triton_runtime.py. The layer of packages is made again when a file changes that this one imports.
CONTAINER_DIR = Path("/opt/tritonserver")
WHEEL = "nvidia-pytriton"
# What the model imports beside vLLM and the standard library: vLLM brings it, so a base without it is broken.
MODEL_IMPORTS = ("jinja2", "msgspec", "torch", "transformers")
PYTHONS_OF_THE_LISTS = ("3.11", "3.12")
# Libraries of the system that vLLM's CPU build is linked with, and the packages of Debian and Ubuntu that have them.
SYSTEM_LIBRARIES = {"libnuma.so.1": "libnuma1"}
# modelscope is large, and only a part of it is used, in the build.
NOT_COMPILED = re.compile(r"/(modelscope|tests?)/")


class ImageError(Exception):
    """The image cannot be made on this base; the text says what to change."""


@dataclass(frozen=True)
class Base:
    """What the base image brings for the model."""

    vllm: str | None
    numpy: str | None
    has_triton: bool
    missing: tuple[str, ...]
    """Packages that the model imports and this base lacks."""

    @classmethod
    def of_this_python(cls) -> Base:
        """Look, without importing anything."""
        return cls(
            vllm=version_of("vllm"),
            numpy=version_of("numpy"),
            has_triton=shutil.which("tritonserver") is not None or CONTAINER_DIR.is_dir(),
            missing=tuple(name for name in MODEL_IMPORTS if version_of(name) is None),
        )

    def additions(self) -> list[str]:
        """The pinned requirements that a base with vLLM still needs, hashes included where the lists have them."""
        wanted = [pin("cpu.txt", "supervisor")]
        if not self.has_triton:
            wanted.append(pin("bundles.txt", WHEEL))
            # The embedded Triton's Python backend breaks with NumPy 2. What was built against 2 runs with 1.26 as well;
            # the environment's own goes before the base's, which stays as it is.
            if self.numpy is None or not self.numpy.startswith("1."):
                wanted.append(pin("cpu.txt", "numpy"))
        return wanted


def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pin(name: str, package: str) -> str:
    """The requirement of a package in one of the pinned lists, with its hashes."""
    text = (REQUIREMENTS / name).read_text()
    found = re.search(rf"^{re.escape(package)}==\S+(?: \\\n    --hash=\S+)*", text, re.MULTILINE)
    if found is None:
        raise ImageError(f"requirements/{name} has no {package}")
    return found.group()


def model_environment(base: Base, accelerator: str) -> None:
    """Make ``.venv``. Raises ImageError."""
    if base.vllm is None:
        if Interpreter.running().version_text not in PYTHONS_OF_THE_LISTS:
            raise ImageError(
                f"this base has no vLLM, and Python {platform.python_version()}: the pinned lists, which would bring "
                f"vLLM, are for CPython {' and '.join(PYTHONS_OF_THE_LISTS)}"
            )
        say(f"no vLLM in this base: installing the pinned lists for {accelerator}")
        if accelerator == "cpu":
            system_packages([package for library, package in SYSTEM_LIBRARIES.items() if not can_be_loaded(library)])
        run([sys.executable, str(ROOT / "scripts" / "environment.py"), "--accelerator", accelerator])
        return
    if base.missing:
        raise ImageError(f"this base has vLLM {base.vllm}, but not {', '.join(base.missing)}, which vLLM needs")
    wanted = base.additions()
    say(f"vLLM {base.vllm} of the base stays; adding {', '.join(line.split()[0] for line in wanted)}")
    run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(ROOT / ".venv")])
    install(wanted, ROOT / ".venv")


def can_be_loaded(library: str) -> bool:
    """Whether this system has a shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def system_packages(missing: Sequence[str]) -> None:
    """Install packages of the system. Raises ImageError where that cannot be done."""
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ImageError(f"this base lacks {', '.join(missing)}, and has no apt-get to install it with")
    say(f"installing {', '.join(missing)}")
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing])
    shutil.rmtree("/var/lib/apt/lists", ignore_errors=True)


def gateway_environment() -> None:
    """Make ``.venv-gateway``."""
    say("installing the gateway's pinned list")
    folder = ROOT / ".venv-gateway"
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    lines = (REQUIREMENTS / "gateway.txt").read_text().splitlines()
    install([line for line in lines if not line.startswith("#")], folder)


def install(requirements: Sequence[str], environment: Path) -> None:
    """Install exactly these, with the pip that the model's environment has or sees."""
    (site_packages,) = (environment / "lib").glob("python3.*/site-packages")
    hashed = [line for line in requirements if "--hash" in line]
    for lines in filter(None, (hashed, [line for line in requirements if line not in hashed])):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
            listed.write("\n".join(lines) + "\n")
            listed.flush()
            # Not into the pip's own environment, and whatever a base holds: hence --target.
            command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
            command += [
                "--no-cache-dir",
                "--no-deps",
                "--upgrade",
                "--target",
                str(site_packages),
                "--requirement",
                listed.name,
            ]
            run(command)


def run(command: Sequence[str]) -> None:
    """Run a command; what it prints is for the one who builds. Raises ImageError."""
    # A base's constraints are about its own packages, which stay anyway; ours are pinned.
    environ = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    environ["DEBIAN_FRONTEND"] = "noninteractive"
    environ |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_CACHE_DIR": "1"}
    try:
        subprocess.run(command, env=environ, check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise ImageError(f"`{' '.join(command)}` failed: {exc}") from exc


def compile_modules(folders: Sequence[Path]) -> None:
    """Compile what an ordinary user cannot write later: without it every start would compile anew."""
    say("compiling the modules")
    for folder in folders:
        # Some packages ship files for other Pythons, which cannot be compiled here; they are never imported either.
        compileall.compile_dir(folder, rx=NOT_COMPILED, quiet=2, workers=0)


def say(text: str) -> None:
    """Tell the one who builds."""
    print(f"image: {text}", flush=True)


def main(check: Callable[[], str | None] = lambda: Interpreter.running().problem()) -> int:
    """Make both environments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="which lists, without a vLLM")
    options = parser.parse_args()
    try:
        problem = check()
        if problem:
            raise ImageError(problem)
        model_environment(Base.of_this_python(), options.accelerator)
        gateway_environment()
    except ImageError as exc:
        print(f"image: {exc}", file=sys.stderr)
        return 1
    compile_modules([ROOT / ".venv", ROOT / ".venv-gateway"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
