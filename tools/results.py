"""The files that the tools leave: JSON beside the text for people, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.errors import ToolError, UsageError


def make_folder(folder: Path) -> Path:
    """Make an output folder. Raises :class:`UsageError` if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"{folder}: cannot be made: {exc.strerror}") from exc
    return folder


def write_json(file: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    write_text(file, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(file: Path, rows: Iterable[Any]) -> None:
    """Write values as JSON, one a line."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_text(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never half of it. Raises :class:`ToolError`."""
    fresh = file.with_name(file.name + ".new")
    try:
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, file)
    except OSError as exc:
        raise ToolError(f"{file}: cannot be written: {exc.strerror}") from exc


def read_json(file: Path) -> Any:
    """Read a JSON file. Raises :class:`UsageError`."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise UsageError(f"{file}: not JSON: {exc}") from exc


def read_jsonl(file: Path) -> list[Any]:
    """Read a JSONL file. Raises :class:`UsageError`."""
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise UsageError(f"{file}: not JSONL: {exc}") from exc
