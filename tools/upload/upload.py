"""Uploading with ModelScope's own client, which resumes, retries and skips what the hub has already."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.console import progress, say
from tools.errors import ToolError, UsageError
from tools.model_folders import check_model
from tools.upload.options import Upload
from tools.upload.redaction import without

# Traces of downloads and training that nobody wants in a published model.
IGNORED = [".git/*", "._*", ".*/*", "*.new", "*.tmp", "*.lock", "checkpoint-*/*", "optimizer.pt", "model.json"]
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass
class Uploaded:
    """What reached the hub."""

    created: bool
    files: int
    megabytes: float


def upload(job: Upload) -> dict[str, Any]:
    """Do it, and return what was done. Raises :class:`ToolError`; no text of it contains the token."""
    check_folder(job.folder)
    try:
        with without(job.token):  # before the client is imported: its log keeps the stream that it finds then
            done = _upload(job)
    except ToolError:
        raise
    except Exception as exc:  # noqa: BLE001 - the client lets through errors of several libraries
        reason = (str(exc).strip().splitlines() or [""])[0][:300]
        raise ToolError(f"{job.model}: {type(exc).__name__}: {reason}".replace(job.token, "***")) from None
    return {
        "model": job.model,
        "revision": job.revision,
        "created": done.created,
        "files": done.files,
        "megabytes": done.megabytes,
    }


def check_folder(folder: Path) -> None:
    """Refuse what this project could not serve. Raises :class:`UsageError`."""
    check_model(folder)
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(f"{folder}: no tokenizer.json in it")
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern) if file.name != "optimizer.pt")
    if pickled:
        raise UsageError(f"{folder}: {pickled[0]} is pickled and can run code; publish safetensors only")


def _upload(job: Upload) -> Uploaded:
    from modelscope_hub import HubApi

    api = HubApi(token=job.token, endpoint=job.endpoint)
    created = not api.repo_exists(job.model, "model")
    if created:
        say(f"making {job.model} ({'private' if job.private else 'public'})")
        api.create_repo(job.model, "model", visibility="private" if job.private else "public")
    files, size = _contents(job.folder)
    # The client's notes on what is done belong to this run; in the folder they would be published by the next tool.
    with progress(files, "uploading", "file") as bar, tempfile.TemporaryDirectory() as notes:
        api.upload_folder(
            job.model,
            "model",
            job.folder,
            commit_message=job.message,
            revision=job.revision,
            ignore_patterns=IGNORED,
            disable_tqdm=True,
            tracker_path=Path(notes) / "uploaded",
            progress_callback=lambda event: bar.update(int(event.get("committed_files") or 0) - bar.n),
        )
        bar.update(files - bar.n)
    return Uploaded(created, files, size / 1e6)


def _contents(folder: Path) -> tuple[int, int]:
    """How many files will be on the hub, and their bytes."""
    from fnmatch import fnmatch

    names = {file: file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    sizes = [
        file.stat().st_size for file, name in names.items() if not any(fnmatch(name, pattern) for pattern in IGNORED)
    ]
    return len(sizes), sum(sizes)
