"""The command line of ``python -m tools.upload``. The token comes from the environment, never from the command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.errors import UsageError

TOKEN = "MODELSCOPE_API_TOKEN"
ENDPOINT = "MODELSCOPE_ENDPOINT"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Upload:
    """What to publish, and where."""

    folder: Path
    model: str
    token: str = field(repr=False)
    revision: str
    private: bool
    message: str
    endpoint: str | None


def parse(arguments: Sequence[str]) -> tuple[Upload, Path | None]:
    """Return what to do and the file for the JSON result. Raises :class:`UsageError`."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.upload",
        description=f"Publish a model folder on ModelScope. The token is read from {TOKEN}.",
    )
    parser.add_argument("folder", type=Path, help="model folder: config.json, safetensors weights, tokenizer")
    parser.add_argument("model", help="owner/name on the hub; made if it is not there")
    parser.add_argument("--revision", default="master", help="branch (default %(default)s)")
    parser.add_argument("--private", action="store_true", help="a model that is made is private")
    parser.add_argument("--message", default="Upload model", help="of the commit (default %(default)r)")
    parser.add_argument("--endpoint", default=_environment(ENDPOINT), help=f"another hub (default: {ENDPOINT}, if set)")
    parser.add_argument("--json", dest="json_file", type=Path, help="file for the result as JSON")
    options = vars(parser.parse_args(arguments))
    json_file: Path | None = options.pop("json_file")
    token = _environment(TOKEN)
    if not token:
        raise UsageError(f"{TOKEN} is not set: it holds the hub's access token")
    if not _ID.fullmatch(options["model"]):
        raise UsageError(f"{options['model']}: the model's name must be owner/name")
    return Upload(token=token, **options), json_file


def _environment(name: str) -> str | None:
    """A variable's value; blank means unset."""
    return os.environ.get(name, "").strip() or None
