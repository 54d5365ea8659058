"""Small executables that stand for real ones."""

from __future__ import annotations

import stat
from pathlib import Path


def write_program(path: Path, text: str) -> None:
    """Write an executable text file; ``text`` begins with its ``#!`` line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
