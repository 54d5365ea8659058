"""A base image as accelerator vendors make them: conda's place, Python 3.10, a vLLM that must stay, NumPy 2, no Triton.

vLLM and torch themselves are there by name only, as their builds for accelerators cannot be had from a registry; all
the rest is real: the interpreter, its libraries, transformers of vLLM 0.10's time, and NumPy 2.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PREFIX = Path("opt/conda")
NAMED_ONLY = {"vllm": "0.10.0", "torch": "2.6.0"}
PACKAGES = ("transformers==4.53.2", "jinja2==3.1.6", "msgspec==0.19.0", "numpy==2.2.6", "fastapi==0.116.1")


def python_310() -> Path | None:
    """A CPython 3.10 of this machine with its shared library, or None."""
    found = shutil.which("python3.10")
    versions = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))
    for candidate in [*([found] if found else []), *map(str, versions)]:
        asked = subprocess.run(
            [candidate, "-c", "import sys, pip; print(sys.base_prefix)"], capture_output=True, text=True, check=False
        )
        prefix = Path(asked.stdout.strip())
        if asked.returncode == 0 and (prefix / "lib" / "libpython3.10.so.1.0").exists():
            return prefix
    return None


def add_to(root: Path, python_prefix: Path) -> Path:
    """Lay Python 3.10 and the packages into a plain system, and return the folder of the packages."""
    conda = root / PREFIX
    unneeded = shutil.ignore_patterns("__pycache__", "test", "tests", "*.a", "share")
    shutil.copytree(python_prefix, conda, symlinks=True, ignore=unneeded)
    site_packages = conda / "lib" / "python3.10" / "site-packages"
    _install(conda / "bin" / "python3.10", site_packages, PACKAGES)
    for name, version in NAMED_ONLY.items():
        metadata = site_packages / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return site_packages


def distributions(site_packages: Path) -> set[str]:
    """What is installed there, with versions."""
    return {path.name for path in site_packages.glob("*.dist-info")}


def _install(python: Path, site_packages: Path, packages: Sequence[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--target", str(site_packages), *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
