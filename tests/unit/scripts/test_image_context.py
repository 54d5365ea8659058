"""The Dockerfile and the build's context agree: what is copied may come in, and nothing else may."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
CONTEXT = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def copied() -> set[str]:
    found = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {source.rstrip("/") for sources in found for source in sources.split()}


def test_the_context_is_what_the_image_copies() -> None:
    assert CONTEXT[2] == "*"
    assert {line[1:] for line in CONTEXT if line.startswith("!")} == copied()
    assert all((ROOT / source).exists() for source in copied())


def test_hidden_and_compiled_files_stay_out_of_copied_folders() -> None:
    last_admission = max(number for number, line in enumerate(CONTEXT) if line.startswith("!"))
    assert {"**/.*", "**/__pycache__", "**/*.pyc"} <= set(CONTEXT[last_admission:])


def test_packages_and_model_are_layers_before_the_code_that_changes_often() -> None:
    order = [DOCKERFILE.index(text) for text in ("image_environment.py --acc", "image_model.sh\n", "COPY gateway/")]
    assert order == sorted(order)


def test_the_token_is_a_secret_and_no_argument() -> None:
    assert "--mount=type=secret,id=MODELSCOPE_API_TOKEN" in DOCKERFILE
    assert not re.search(r"^(ARG|ENV) .*TOKEN", DOCKERFILE, re.MULTILINE)
