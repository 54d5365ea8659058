"""From a request to a complete folder: look, lock, mark as started, fill, check, write the manifest.

Two processes may do this side by side, and any of them may die at any point; what then lies in the folder is either
complete (a manifest), or marked as started and taken up by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from download.console import megabytes, progress_lines, say
from download.errors import DownloadError
from download.options import Request
from download.sources import fetch
from runtime import model_folder
from runtime.model_folder import Origin

LOCK_WAIT_S = 3600.0


def obtain(request: Request, *, token: str | None, verify: bool) -> None:
    """Bring one folder into the state its request asks for. Raises DownloadError.

    ``verify``: where the folder is complete, read the files and compare their hashes with the manifest.
    """
    folder, origin = request.folder, request.origin
    try:
        if origin is None:
            _require_sound(folder, verify=verify)
        elif not _is_complete(folder, origin, verify=verify):
            with _locked(folder):
                if not _is_complete(folder, origin, verify=verify):  # another process may have finished meanwhile
                    _download(folder, origin, token=token, verify=verify)
    except DownloadError:
        raise
    except Exception as exc:  # the hubs' clients raise errors of many libraries, and all end here
        raise DownloadError(f"{origin or folder}: {_in_one_line(exc)}") from exc


def _require_sound(folder: Path, *, verify: bool) -> None:
    problems = model_folder.check_model_folder(folder)
    manifest = model_folder.read_manifest(folder) if verify and not problems else None
    if manifest is not None:
        problems = list(model_folder.damaged_files(folder, manifest, hashes=True).values())
    if problems:
        raise DownloadError(f"{folder}: {'; '.join(problems)}")
    say(f"{folder} is sound; no model is named, so nothing is fetched")


def _is_complete(folder: Path, origin: Origin, *, verify: bool) -> bool:
    manifest = model_folder.read_manifest(folder)
    if manifest is None:
        return False
    _refuse_mixing(folder, manifest.origin, origin)
    damaged = model_folder.damaged_files(folder, manifest, hashes=verify)
    for problem in damaged.values():
        say(f"{folder}: {problem}")
    if not damaged:
        say(f"{origin} is complete in {folder}")
    return not damaged


def _refuse_mixing(folder: Path, found: Origin, wanted: Origin) -> None:
    if found != wanted:
        raise DownloadError(f"{folder} holds {found}, not {wanted}: name another folder, or remove this one")


def _download(folder: Path, origin: Origin, *, token: str | None, verify: bool) -> None:
    _begin(folder, origin, verify=verify)
    say(f"fetching {origin} into {folder}")
    try:
        with contextlib.redirect_stdout(sys.stderr), progress_lines(folder):
            fetch(origin.source, origin.revision, folder, token)
        problems = model_folder.check_contents(folder)
        if problems:
            raise DownloadError(f"{origin}: {'; '.join(problems)} (of weights, only safetensors are fetched)")
    except BaseException:
        _forget_if_empty(folder)
        raise
    say("hashing the files")
    manifest = model_folder.write_manifest(folder, origin)
    say(f"done: {len(manifest.files)} files, {megabytes(sum(file.size for file in manifest.files))} in {folder}")


def _begin(folder: Path, origin: Origin, *, verify: bool) -> None:
    """Mark the folder as started, or refuse it. A damaged folder loses its bad files, and only then its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest, started = model_folder.read_manifest(folder), model_folder.read_started(folder)
    if manifest is not None:
        model_folder.mark_started(folder, origin)
        for name in model_folder.damaged_files(folder, manifest, hashes=verify):
            (folder / name).unlink(missing_ok=True)
        (folder / model_folder.MANIFEST_NAME).unlink()
    elif started is not None:
        _refuse_mixing(folder, started, origin)
    elif any(model_folder.model_files(folder)):
        way_out = "name another folder, or unset MODEL_ID and set MODEL_DIR to serve it as it is"
        raise DownloadError(f"{folder} holds files that were not downloaded by this program: {way_out}")
    else:
        model_folder.mark_started(folder, origin)


def _forget_if_empty(folder: Path) -> None:
    """Take back the mark of a download that brought nothing, such as one of an unknown model."""
    if not any(file.is_file() and file.name != model_folder.STARTED_NAME for file in folder.rglob("*")):
        (folder / model_folder.STARTED_NAME).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a mount point stays, and so does a folder with empty folders in it
            folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel gives it back when the process ends, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "a", encoding="utf-8") as handle:  # never removed: a waiter would hold a dead file
        if not _try_lock(handle):
            say(f"another process is downloading into {folder}; waiting for it")
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _try_lock(handle):
                if time.monotonic() > deadline:
                    raise DownloadError(f"{folder}: another process has held {handle.name} for {LOCK_WAIT_S:.0f} s")
                time.sleep(0.2)
        yield


def _try_lock(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_one_line(exc: Exception) -> str:
    if isinstance(exc, ImportError) and exc.name:
        return f"the Python package {exc.name} is missing"
    if isinstance(exc, OSError) and exc.filename and exc.strerror:
        return f"{exc.filename}: {exc.strerror}"
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:500]}"
