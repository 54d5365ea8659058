"""How pip reaches its packages on this machine, handed on to a build; mirrors stay this machine's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def volumes(scratch: Path) -> list[str]:
    """Arguments of ``buildah build`` that give a build this machine's pip configuration, read-only.

    Nothing of it gets into a layer: the files and folders are mounted while the build runs.
    """
    settings = _settings()
    config = scratch / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    mounts = {Path("/etc/pip.conf"): config}
    for value in settings.values():
        for word in value.split():
            is_index = word.startswith("file://")  # its pages lead to files beside it
            path = Path(urlsplit(word).path).parent if is_index else Path(word)
            if path.is_absolute() and path.exists():
                mounts[path] = path
    if _CERTIFICATES.exists():
        mounts[_CERTIFICATES] = _CERTIFICATES
    return [f"--volume={source}:{target}:ro" for target, source in mounts.items()]


def _settings() -> dict[str, str]:
    """What `pip config list` says, whichever file or variable it comes from."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True, timeout=60
    )
    settings: dict[str, str] = {}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # variables win
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip().strip("'\"").replace("\\n", " ")
    return settings
