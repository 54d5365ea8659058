"""Images built for real without a Docker engine: buildah, in a store of its own that goes away with the tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.stack import ROOT

NEEDED = ("buildah", "debootstrap", "unshare", "nsenter", "ip", "chroot")
BUILD_LIMIT_S = 900  # the evaluator's


def missing_tools() -> str | None:
    """One line saying what this machine lacks for the image tests, or None."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return (
            f"image tests need {', '.join(absent)}: apt-get install buildah debootstrap iproute2 util-linux coreutils"
        )
    return None if os.geteuid() == 0 else "image tests need root: they make file systems and namespaces"


@dataclass(frozen=True)
class Builder:
    """One store of images. ``log`` takes what the builds print."""

    store: Path
    log: Path

    def run(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run one buildah command and return what it prints."""
        command = ["buildah", *self._store_options(), *arguments]
        with self.log.open("ab") as log:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=log, timeout=timeout_s, check=False, text=True
            )
            log.write(done.stdout.encode())
        assert done.returncode == 0, f"buildah {arguments[0]} failed:\n{self.log.read_text()[-4000:]}"
        return done.stdout.strip()

    def image_of(self, root: Path, name: str, *config: str) -> None:
        """Make an image of a folder; ``config`` are arguments of `buildah config`."""
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, f"{root}/", "/")
        if config:
            self.run("config", *config, container)
        self.run("commit", "--quiet", "--format=docker", "--rm", container, name)

    def build(self, name: str, base: str, arguments: Sequence[str]) -> None:
        """Build the project's Dockerfile on a base."""
        options = [
            "--isolation=chroot",
            "--network=host",
            "--format=docker",
            f"--build-arg=BASE_IMAGE=localhost/{base}",
        ]
        self.run("bud", *options, *arguments, f"--tag={name}", str(ROOT), timeout_s=BUILD_LIMIT_S)

    def inspect(self, name: str) -> dict[str, Any]:
        """The whole description of an image: configuration, history."""
        described: dict[str, Any] = json.loads(self.run("inspect", "--type=image", name))
        return described

    def mounted(self, name: str) -> Path:
        """The file system of a fresh container of the image."""
        container = self.run("from", "--pull-never", f"localhost/{name}")
        return Path(self.run("mount", container))

    def remove(self) -> None:
        """Remove the store with everything in it."""
        subprocess.run(
            ["buildah", *self._store_options(), "rm", "--all"], capture_output=True, timeout=120, check=False
        )
        # Overlays are mounted below it; removing it under a mount would fail.
        subprocess.run(
            ["umount", "--recursive", str(self.store / "root" / "overlay")], capture_output=True, check=False
        )
        shutil.rmtree(self.store, ignore_errors=True)

    def _store_options(self) -> list[str]:
        return [f"--root={self.store / 'root'}", f"--runroot={self.store / 'run'}", f"--storage-driver={_driver()}"]


def debian(folder: Path) -> Path:
    """A plain Debian 12 with Python, as small as it gets."""
    packages = "python3,python3-venv,libpython3.11,ca-certificates"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, f"debootstrap failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
    return folder


def _driver() -> str:
    # Where overlays cannot be had, every layer is a copy of the one below.
    supported = "overlay" in Path("/proc/filesystems").read_text()
    return os.environ.get("STORAGE_DRIVER", "overlay" if supported else "vfs")
