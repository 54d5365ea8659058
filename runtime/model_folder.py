"""What a model folder is: where it lies, what makes it complete, what is wrong with it.

Shared by ``download_model.py``, which fills folders, and the launcher, which checks one before anything starts.
Standard library only, and cheap: files are looked at by size and header; only ``damaged_files(…, hashes=True)``
reads them whole.

A folder that was downloaded carries one of two small files of ours:

    download_started.json     a download of this origin began here and has not finished
    download_manifest.json    every file with size and SHA-256; written last, so it means "complete"

A folder somebody put there by hand has neither and is judged by its contents alone.

Errors:

    DamagedFileError    one of the folder's JSON files is not what it should be; the text is one line naming it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DEFAULT_MODEL_ID = "bundled:smollm2"
MANIFEST_NAME = "download_manifest.json"
STARTED_NAME = "download_started.json"
# What the hubs' clients take for a token. Nothing is fetched at run time, so only the download needs one.
HUB_TOKENS = ("MODELSCOPE_API_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

# One of these is enough for a tokenizer: fast, SentencePiece, byte-level BPE, WordPiece, Mistral's.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
_SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
_LFS_POINTER = b"version https://git-lfs"


class DamagedFileError(Exception):
    """A JSON file of the folder cannot be read as what it should be."""


@dataclass(frozen=True)
class Origin:
    """Where a folder's files come from: ``scheme:name`` and the revision (empty where there are none)."""

    source: str
    revision: str

    def __str__(self) -> str:
        return f"{self.source} (revision {self.revision})" if self.revision else self.source


@dataclass(frozen=True)
class FileEntry:
    """One file of a complete folder: name relative to it with ``/``, size in bytes, SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of ``download_manifest.json``."""

    origin: Origin
    files: tuple[FileEntry, ...]


def default_model_dir(model_id: str, root: Path) -> Path:
    """Return ``<root>/models/<slug>``, the folder of ``model_id`` where none is named.

    The default scheme ``modelscope:`` is left out of the slug, others stay as a prefix; ``/`` and ``:`` become ``__``.
    """
    slug = re.sub(r"[/:]", "__", model_id.strip().removeprefix("modelscope:"))
    return root / "models" / slug


def check_model_folder(path: Path) -> list[str]:
    """Return what keeps the folder from being served, in plain words; an empty list means it is sound."""
    if not path.is_dir():
        return [f"the model folder {path} does not exist" if not path.exists() else f"{path} is not a folder"]
    try:
        manifest = read_manifest(path)
        if manifest is not None:
            return list(damaged_files(path, manifest).values()) + check_contents(path)
        started = read_started(path)
    except DamagedFileError as exc:
        return [str(exc)]
    except OSError as exc:
        return [_in_plain_words(exc, path)]
    unfinished = [f"the download of {started} has not finished: run download_model.py again"] if started else []
    return unfinished + check_contents(path)


def check_contents(path: Path) -> list[str]:
    """Return what is wrong with the model's own files, whoever put them there."""
    try:
        return _config_problems(path) + _tokenizer_problems(path) + _weight_problems(path)
    except OSError as exc:
        return [_in_plain_words(exc, path)]


def _in_plain_words(exc: OSError, path: Path) -> str:
    return f"{exc.filename or path}: {exc.strerror or exc}"


def _config_problems(path: Path) -> list[str]:
    try:
        config = _read_json(path / "config.json")
    except FileNotFoundError:
        return ["config.json is missing"]
    except DamagedFileError as exc:
        return [str(exc)]
    return [] if config.get("architectures") else ["config.json names no architectures"]


def _tokenizer_problems(path: Path) -> list[str]:
    if any((path / name).is_file() for name in _TOKENIZER_FILES) or any(path.glob("*.tiktoken")):
        return []
    return [f"the tokenizer is missing (none of {', '.join(_TOKENIZER_FILES)})"]


def _weight_problems(path: Path) -> list[str]:
    weights = sorted(path.glob("*.safetensors"))
    if not weights and any(file.suffix in _PICKLE_SUFFIXES for file in path.iterdir()):
        return ["only pickled weights (*.bin, *.pt), which can run code when loaded: convert them to safetensors"]
    try:
        missing = sorted(_shards(path, weights) - {file.name for file in weights})
    except DamagedFileError as exc:
        return [str(exc)]
    if not weights and not missing:
        return ["no weights: there is no *.safetensors file"]
    problems = [f"{name} is missing (a shard of the weights)" for name in missing]
    return problems + [problem for file in weights if (problem := _safetensors_problem(file))]


def _shards(path: Path, weights: list[Path]) -> set[str]:
    """Return the names of all shards that the indexes list or that a name like ``x-00001-of-00003`` implies."""
    names: set[str] = set()
    for index in path.glob("*.safetensors.index.json"):
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise DamagedFileError(f"{index.name} has no weight_map")
        names.update(map(str, weight_map.values()))
    for match in filter(None, (_SHARD_NAME.fullmatch(file.name) for file in weights)):
        total = match["total"]
        names.update(f"{match['stem']}-{number:05}-of-{total}.safetensors" for number in range(1, int(total) + 1))
    return names


def _safetensors_problem(file: Path) -> str | None:
    """Compare the length that the header implies with the file's.

    Layout (the safetensors format's description): 8 bytes little-endian header length, JSON header, tensor data.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        first = handle.read(len(_LFS_POINTER))
        if first == _LFS_POINTER:
            return f"{file.name} is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"
        header_size = int.from_bytes(first[:8], "little")
        if size < 8 + header_size and header_size <= _MAX_HEADER_BYTES:
            return f"{file.name} is truncated: {size} bytes, its header alone has {header_size}"
        if header_size > _MAX_HEADER_BYTES:
            return f"{file.name} is not a safetensors file"
        handle.seek(8)
        header = handle.read(header_size)
    try:
        expected = 8 + header_size + _data_length(header)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{file.name} is damaged: its header cannot be read"
    if size == expected:
        return None
    return f"{file.name} is {'truncated' if size < expected else 'damaged'}: {size} bytes instead of {expected}"


def _data_length(header: bytes) -> int:
    tensors = json.loads(header)
    return max((int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"), default=0)


def read_manifest(path: Path) -> Manifest | None:
    """Return the folder's manifest, or None without one. Raises DamagedFileError when it cannot be read."""
    try:
        raw = _read_json(path / MANIFEST_NAME)
        files = tuple(FileEntry(str(f["name"]), int(f["size"]), str(f["sha256"])) for f in raw["files"])
        return Manifest(Origin(str(raw["source"]), str(raw["revision"])), files)
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as exc:
        raise DamagedFileError(f"{MANIFEST_NAME} is damaged: remove {path} and run download_model.py again") from exc


def write_manifest(path: Path, origin: Origin) -> Manifest:
    """Hash every file of the folder, write the manifest atomically, and drop the mark of an unfinished download."""
    files = tuple(FileEntry(name, (path / name).stat().st_size, sha256(path / name)) for name in model_files(path))
    _write_json(path / MANIFEST_NAME, {**asdict(origin), "files": [asdict(entry) for entry in files]})
    (path / STARTED_NAME).unlink(missing_ok=True)
    return Manifest(origin, files)


def damaged_files(path: Path, manifest: Manifest, *, hashes: bool = False) -> dict[str, str]:
    """Return name → problem for the files that are missing, of another size or, if asked, of other content."""
    damaged = {}
    for entry in manifest.files:
        file = path / entry.name
        if not file.is_file():
            damaged[entry.name] = f"{entry.name} is missing"
        elif (size := file.stat().st_size) != entry.size:
            damaged[entry.name] = f"{entry.name} has {size} bytes instead of {entry.size}"
        elif hashes and sha256(file) != entry.sha256:
            damaged[entry.name] = f"{entry.name} has another SHA-256 than when it was downloaded"
    return damaged


def read_started(path: Path) -> Origin | None:
    """Return the origin of a download that began in the folder and has not finished, or None."""
    try:
        raw = _read_json(path / STARTED_NAME)
        return Origin(str(raw["source"]), str(raw["revision"]))
    except FileNotFoundError:
        return None
    except KeyError as exc:
        raise DamagedFileError(f"{STARTED_NAME} is damaged: remove {path} and run download_model.py again") from exc


def mark_started(path: Path, origin: Origin) -> None:
    """Mark the folder as one whose download has not finished; ``write_manifest`` ends that."""
    _write_json(path / STARTED_NAME, asdict(origin))


def model_files(path: Path) -> Iterator[str]:
    """Yield the names of the folder's files, sorted; hidden ones, half-downloaded ones and our own two are left out."""
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if not hidden and name not in {MANIFEST_NAME, STARTED_NAME} and file.suffix != ".incomplete" and file.is_file():
            yield name


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object. Raises DamagedFileError naming the file when it holds something else."""
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise DamagedFileError(f"{file.name} is not valid JSON") from exc
    if not isinstance(value, dict):
        raise DamagedFileError(f"{file.name} is not a JSON object")
    return value


def _write_json(file: Path, value: dict[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())  # after a power cut the name must not stand for an empty file
    os.replace(temporary, file)
