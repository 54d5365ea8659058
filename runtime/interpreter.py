"""Can this Python host Triton's stub? The stub embeds an interpreter: it needs libpython as a shared library."""

from __future__ import annotations

import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 10)
NEWEST = (3, 12)  # Triton 2.51 needs NumPy < 2, which has no release for 3.13


@dataclass(frozen=True)
class Interpreter:
    """The facts about a Python that decide whether the stub can run it."""

    implementation: str
    version: tuple[int, int]
    executable: Path
    library_dirs: tuple[Path, ...]
    """Where its shared library may be, best first."""
    library_name: str

    @classmethod
    def running(cls) -> Interpreter:
        """The Python that runs this."""
        version = (sys.version_info.major, sys.version_info.minor)
        return cls(
            implementation=platform.python_implementation(),
            version=version,
            executable=Path(sys.executable),
            library_dirs=_library_dirs(),
            library_name=_library_name(version),
        )

    @property
    def version_text(self) -> str:
        """Such as ``3.11``."""
        return ".".join(map(str, self.version))

    def shared_library_dir(self) -> Path | None:
        """The folder with this interpreter's own libpython, or None if it has none."""
        return next((folder for folder in self.library_dirs if (folder / self.library_name).exists()), None)

    def problem(self) -> str | None:
        """One line saying why the stub cannot use this Python and what to install, or None if it can."""
        wanted = f"CPython {_text(OLDEST)} to {_text(NEWEST)}"
        if self.implementation != "CPython" or not OLDEST <= self.version <= NEWEST:
            found = f"{self.implementation} {self.version_text}"
            return f"Triton's Python backend needs {wanted}, this is {found} ({self.executable}): install python3.11"
        if self.shared_library_dir() is None:
            return (
                f"{self.executable} has no shared {self.library_name}, which Triton's Python backend needs: "
                f"install libpython{self.version_text} (Debian, Ubuntu) or python{self.version_text}-libs (Fedora), "
                "or build Python with --enable-shared"
            )
        return self._command_problem()

    def _command_problem(self) -> str | None:
        # The stub takes its packages from the `python3` that comes first on PATH; ours is put there by its folder.
        command = self.executable.parent / "python3"
        if command.exists() and command.samefile(self.executable):
            return None
        return f"{command} is not {self.executable}: use a virtual environment ({self.executable} -m venv .venv)"


def _library_name(version: tuple[int, int]) -> str:
    name = str(sysconfig.get_config_var("INSTSONAME") or "")
    # conda reports the static library here and ships the shared one all the same.
    return name if ".so" in name else f"libpython{_text(version)}.so.1.0"


def _library_dirs() -> tuple[Path, ...]:
    libdir = sysconfig.get_config_var("LIBDIR")
    multiarch = sysconfig.get_config_var("MULTIARCH")
    own = [Path(sys.base_prefix) / "lib"]  # relocated builds keep a LIBDIR of the machine they were built on
    if libdir:
        own.insert(0, Path(libdir))
    if multiarch:  # Debian's
        own += [folder / multiarch for folder in tuple(own)]
    return tuple(dict.fromkeys(own))


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
