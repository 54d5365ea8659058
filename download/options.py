"""The command line laid over the environment: what to fetch, and where to."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from download.errors import DownloadError
from runtime.model_folder import DEFAULT_MODEL_ID, HUB_TOKENS, Origin, default_model_dir

SOURCES = "modelscope:<owner>/<name> (also without the scheme), hf:<name>, file:<folder>, bundled:smollm2"
FLAGS = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}

_ROOT = Path(__file__).resolve().parent.parent
_NAME_SHAPES = {"modelscope": r"[\w.-]+/[\w.-]+", "hf": r"[\w.-]+(/[\w.-]+)?", "file": r".+", "bundled": "smollm2"}
_DEFAULT_REVISIONS = {"modelscope": "master", "hf": "main"}  # the other sources have no revisions
_SWITCH: dict[str, Any] = {"action": "store_const", "const": "1"}


@dataclass(frozen=True)
class Request:
    """One folder and what shall be in it. ``origin`` None: whatever is there, if it is sound."""

    origin: Origin | None
    folder: Path


@dataclass(frozen=True)
class Options:
    """All that one run shall do. ``token`` is ModelScope's; Hugging Face's client reads ``HF_TOKEN`` itself."""

    model: Request
    draft: Request | None
    draft_optional: bool
    verify: bool
    token: str | None
    secrets: tuple[str, ...]
    """The tokens of all hubs, which must not be shown."""

    @classmethod
    def parse(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Options:
        """Read both; the command line wins and blank means unset. Raises DownloadError naming a bad value."""
        arguments = {name: value for name, value in vars(_parser().parse_args(argv)).items() if value.strip()}
        given = {name: value.strip() for name, value in {**environ, **arguments}.items() if value.strip()}
        if "MODEL_DIR" in arguments or "MODEL_DIR" not in given:  # --dest is a place to fill, MODEL_DIR alone a model
            given.setdefault("MODEL_ID", DEFAULT_MODEL_ID)
        has_draft = "SPEC_DRAFT_MODEL_ID" in given or "SPEC_DRAFT_MODEL_DIR" in given
        return cls(
            model=_request("MODEL", given),
            draft=_request("SPEC_DRAFT_MODEL", given) if has_draft else None,
            draft_optional=_flag("SPEC_DRAFT_OPTIONAL", given),
            verify="verify" in arguments,
            token=given.get("MODELSCOPE_API_TOKEN"),
            secrets=tuple(given[name] for name in HUB_TOKENS if name in given),
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DownloadError(f"{message} (see --help)")  # argparse would exit with 2, which means something else here


def _parser() -> argparse.ArgumentParser:
    """Build the parser; an option is stored under the environment variable that it overrides."""
    parser = _Parser(
        prog="download_model.py",
        description="Fetch the model's weights; the folder is printed. Interrupted downloads are resumed.",
        epilog="Exit codes: 0 done, 1 the model or the command line failed, 2 a required draft failed.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--model", dest="MODEL_ID", metavar="ID", help=f"{SOURCES}; default: MODEL_ID, else {DEFAULT_MODEL_ID}")
    add("--revision", dest="MODEL_REVISION", metavar="R", help="branch, tag or commit; default: MODEL_REVISION")
    add("--dest", dest="MODEL_DIR", metavar="DIR", help="folder to fill; default: MODEL_DIR, else models/<name>")
    add("--draft", dest="SPEC_DRAFT_MODEL_ID", metavar="ID", help="draft model; default: SPEC_DRAFT_MODEL_ID")
    add("--draft-optional", dest="SPEC_DRAFT_OPTIONAL", **_SWITCH, help="a draft that fails is no failure")
    add("--token", dest="MODELSCOPE_API_TOKEN", metavar="T", help="ModelScope's; better: MODELSCOPE_API_TOKEN")
    add("--verify", **_SWITCH, help="where a folder is complete, compare hashes too, not only sizes")
    hidden = argparse.SUPPRESS  # spellings of an older program of this name
    add("--model_name", dest="MODEL_ID", help=hidden)
    add("--draft_model_name", dest="SPEC_DRAFT_MODEL_ID", help=hidden)
    add("--draft_revision", dest="SPEC_DRAFT_MODEL_REVISION", help=hidden)
    add("--draft_optional", dest="SPEC_DRAFT_OPTIONAL", **_SWITCH, help=hidden)
    return parser


def _request(prefix: str, given: Mapping[str, str]) -> Request:
    model_id, folder = given.get(f"{prefix}_ID", ""), given.get(f"{prefix}_DIR")
    origin = _origin(f"{prefix}_ID", model_id, given.get(f"{prefix}_REVISION")) if model_id else None
    chosen = Path(folder).expanduser() if folder else default_model_dir(model_id, _ROOT)
    return Request(origin, Path(os.path.abspath(chosen)))  # noqa: PTH100 - resolve() would follow symbolic links


def _origin(variable: str, model_id: str, revision: str | None) -> Origin:
    scheme, colon, name = model_id.partition(":")
    if not colon:
        scheme, name = "modelscope", model_id
    if not re.fullmatch(_NAME_SHAPES.get(scheme, "(?!)"), name):
        raise DownloadError(f"{variable}={model_id}: allowed are {SOURCES}")
    if scheme == "file":
        name = str(Path(name).expanduser().resolve())
    default = _DEFAULT_REVISIONS.get(scheme)
    return Origin(f"{scheme}:{name}", (revision or default) if default else "")


def _flag(name: str, given: Mapping[str, str]) -> bool:
    value = given.get(name, "0")
    if value.lower() not in FLAGS:
        raise DownloadError(f"{name}={value}: allowed are {', '.join(FLAGS)}")
    return FLAGS[value.lower()]
