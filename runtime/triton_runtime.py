"""Which Triton is used: the one that is there (an NVIDIA container), else the one in the `nvidia-pytriton` wheel."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import TritonUnavailable
from runtime.interpreter import Interpreter
from runtime.settings import RuntimeSettings

CONTAINER_DIR = Path("/opt/tritonserver")
WHEEL = "nvidia-pytriton"
WHEEL_TRITON_VERSIONS = {"0.7.0": "2.51.0"}  # the wheel does not say it; the server's first log lines do
LAYOUT = "1"  # raise it when the assembled folder gets other contents
STUB = "backends/python/triton_python_backend_stub"
ASSEMBLED_FILES = (
    "bin/tritonserver",
    "backends/python/libtriton_python.so",
    "backends/python/triton_python_backend_utils.py",
    STUB,
)


@dataclass(frozen=True)
class TritonRuntime:
    """A Triton that can be started."""

    server: Path
    backend_dir: Path
    library_path: tuple[Path, ...]
    """Folders of its own shared libraries; empty for a container's Triton, which finds them by itself."""
    embedded: bool
    version: str


@dataclass(frozen=True)
class Wheel:
    """The installed wheel, found without importing it (that would import much more)."""

    package: Path
    version: str

    @classmethod
    def installed(cls) -> Wheel | None:
        """The wheel of this environment, or None."""
        spec = importlib.util.find_spec("pytriton")
        if spec is None or not spec.submodule_search_locations:
            return None
        try:
            version = importlib.metadata.version(WHEEL)
        except importlib.metadata.PackageNotFoundError:
            return None
        return cls(package=Path(next(iter(spec.submodule_search_locations))), version=version)

    def sources(self, python: Interpreter) -> dict[str, Path]:
        """Place in the assembled folder → where it comes from."""
        server = self.package / "tritonserver"
        return {
            "bin/tritonserver": server / "bin" / "tritonserver",
            "libs": self.package.parent / "nvidia_pytriton.libs",
            "backends/python/libtriton_python.so": server / "backends" / "python" / "libtriton_python.so",
            "backends/python/triton_python_backend_utils.py": (
                server / "backends" / "python" / "triton_python_backend_utils.py"
            ),
            STUB: server / "python_backend_stubs" / python.version_text / "triton_python_backend_stub",
        }


def find_installed(settings: RuntimeSettings, environ: Mapping[str, str]) -> TritonRuntime | None:
    """The Triton of this machine, or None. A forced folder must be complete.

    Raises:
        TritonUnavailable: TRITON_SERVER_DIR names a folder without a Triton.
    """
    if settings.triton_server_dir:
        return _forced(settings.triton_server_dir)
    on_path = shutil.which("tritonserver", path=environ.get("PATH"))
    candidates = [Path(on_path).resolve().parent.parent] if on_path else []
    complete = (folder for folder in [*candidates, CONTAINER_DIR] if _is_complete(folder))
    return next(map(_runtime_in, complete), None)


def obtain(settings: RuntimeSettings, environ: Mapping[str, str], python: Interpreter) -> TritonRuntime:
    """The Triton to start; the embedded one is assembled where that has not been done yet.

    Raises:
        TritonUnavailable: there is none, with what to do about it.
    """
    found = find_installed(settings, environ)
    if found:
        return found
    return assemble(wheel_or_raise(Wheel.installed(), python), settings.triton_runtime_dir, python)


def wheel_or_raise(wheel: Wheel | None, python: Interpreter) -> Wheel:
    """The wheel, if there is one and it has everything for this Python."""
    if wheel is None:
        raise TritonUnavailable(
            f"no tritonserver on PATH or in {CONTAINER_DIR}, and the wheel that carries one is not installed: "
            f"pip install --no-deps {WHEEL}=={next(iter(WHEEL_TRITON_VERSIONS))}"
        )
    missing = [str(source) for source in wheel.sources(python).values() if not source.exists()]
    if missing:
        raise TritonUnavailable(
            f"{WHEEL} {wheel.version} lacks {', '.join(missing)}: pip install --no-deps --force-reinstall {WHEEL}"
        )
    return wheel


def assemble(wheel: Wheel, base: Path, python: Interpreter) -> TritonRuntime:
    """Put the embedded Triton together under `base`, or use what an earlier call has put there.

    The folder's name holds everything it depends on, and it appears under that name in one step when complete. So
    another Python or wheel gets a folder of its own, and two starts at once do not disturb each other.

    Raises:
        TritonUnavailable: the folder is incomplete and cannot be written.
    """
    folder = base / _folder_name(wheel, python)
    if not _is_complete(folder):
        try:
            _build(wheel, python, folder)
        except OSError as exc:
            raise TritonUnavailable(
                f"cannot assemble Triton in {base}: {exc.strerror or exc}; set TRITON_RUNTIME_DIR to a writable folder"
            ) from exc
    return _runtime_in(folder)


def stub_python_version(runtime: TritonRuntime) -> str | None:
    """Which Python the stub is linked with, such as ``3.12``, or None if that cannot be read."""
    try:
        content = (runtime.backend_dir / "python" / "triton_python_backend_stub").read_bytes()
    except OSError:
        return None
    found = re.search(rb"libpython(3\.\d+)\.so", content)
    return found.group(1).decode() if found else None


def _forced(folder: Path) -> TritonRuntime:
    if not _is_complete(folder):
        missing = next(name for name in ASSEMBLED_FILES if not (folder / name).exists())
        raise TritonUnavailable(f"TRITON_SERVER_DIR={folder}: has no {missing}")
    return _runtime_in(folder)


def _is_complete(folder: Path) -> bool:
    # exists() follows links: a link to a wheel that is gone counts as missing
    return all((folder / name).exists() for name in ASSEMBLED_FILES)


def _runtime_in(folder: Path) -> TritonRuntime:
    libs = folder / "libs"
    embedded = libs.is_dir()  # only an assembled folder has it
    version = folder / "TRITON_VERSION"  # in NVIDIA's containers, and in what is assembled here
    return TritonRuntime(
        server=folder / "bin" / "tritonserver",
        backend_dir=folder / "backends",
        library_path=(libs,) if embedded else (),
        embedded=embedded,
        version=version.read_text().strip() if version.is_file() else "of unknown version",
    )


def _folder_name(wheel: Wheel, python: Interpreter) -> str:
    depends_on = f"{LAYOUT} {wheel.package.resolve()}"
    digest = hashlib.sha256(depends_on.encode()).hexdigest()[:8]
    return f"pytriton-{wheel.version}-py{python.version_text}-{digest}"


def _build(wheel: Wheel, python: Interpreter, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        scratch.chmod(0o755)
        for name, source in wheel.sources(python).items():
            _place(source, scratch / name)
        (scratch / "TRITON_VERSION").write_text(WHEEL_TRITON_VERSIONS.get(wheel.version, f"in {WHEEL} {wheel.version}"))
        _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    must_run = target.name in ("tritonserver", "triton_python_backend_stub")
    if not must_run or os.access(source, os.X_OK):
        try:
            target.symlink_to(source)
        except OSError:
            pass  # a file system without links
        else:
            return
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
        target.chmod(0o755 if must_run else 0o644)


def _publish(scratch: Path, folder: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        if _is_complete(folder):  # another start was faster
            return
        # Something broken is in the way, such as links to an environment that is gone.
        folder.rename(scratch.with_suffix(".broken"))
        shutil.rmtree(scratch.with_suffix(".broken"), ignore_errors=True)
        scratch.rename(folder)
