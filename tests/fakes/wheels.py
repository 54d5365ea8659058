"""Small wheels for a package index that is a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile


def write_wheel(folder: Path, name: str, version: str, source: str = "", requires: Sequence[str] = ()) -> str:
    """Write a wheel with one module ``name`` and return its SHA-256. ``source`` is the module's text."""
    info = f"{name}-{version}.dist-info"
    needs = [f"Requires-Dist: {requirement}" for requirement in requires]
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *needs, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()
