"""Model folders: what they must contain, and new ones that appear whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.errors import ToolError, UsageError

# What belongs to a tokenizer or to generation, and is taken over unchanged.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return a folder's configuration. Raises :class:`UsageError` if it has none."""
    try:
        config = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"{folder}: no {name} in it") from exc
    except ValueError as exc:
        raise UsageError(f"{folder / name}: not JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise UsageError(f"{folder / name}: not an object")
    return config


def check_model(folder: Path) -> dict[str, Any]:
    """Return the configuration of a folder with safetensors weights. Raises :class:`UsageError`."""
    config = read_config(folder)
    if not any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder}: no safetensors weights in it")
    return config


def weight_bytes(folder: Path) -> int:
    """The size of a folder's weights."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def copy_companions(sources: tuple[Path, ...], target: Path) -> list[str]:
    """Copy tokenizer and generation files, each from the first folder that has it; return their names."""
    copied = []
    for name in COMPANIONS:
        source = next((folder / name for folder in sources if (folder / name).is_file()), None)
        if source is not None:
            shutil.copyfile(source, target / name)
            copied.append(name)
    return copied


def check_output(out: Path, force: bool) -> None:
    """Refuse to write over something. Raises :class:`UsageError`."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: not a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise UsageError(f"--out {out}: not empty; --force replaces it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; it takes the place of ``out`` at the end, or disappears if that is not reached."""
    fresh = out.with_name(f".{out.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        for file in fresh.iterdir():
            file.chmod(0o644)  # libraries write weights that only their owner can read, and a container is another user
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
    except OSError as exc:
        raise ToolError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
