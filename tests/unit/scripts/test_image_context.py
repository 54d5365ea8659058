"""The Dockerfile and the build's context agree: what is copied may come in, and nothing else may."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
CONTEXT = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def copied(dockerfile: str = DOCKERFILE) -> list[str]:
    """What is copied, in order."""
    found = re.findall(r"^COPY (.+) \S+$", dockerfile.replace("\\\n", " "), re.MULTILINE)
    return [source.rstrip("/") for sources in found for source in sources.split()]


def test_the_context_is_what_the_image_copies() -> None:
    assert CONTEXT[2] == "*"
    assert {line[1:] for line in CONTEXT if line.startswith("!")} == {source.split("/")[0] for source in copied()}
    assert all((ROOT / source).exists() for source in copied())


def test_the_first_layers_have_all_that_their_scripts_import(tmp_path: Path) -> None:
    for script, end in (("scripts/image_environment.py", "RUN python3"), ("download_model.py", "RUN --mount")):
        layers = tmp_path / Path(script).stem
        for source in copied(DOCKERFILE[: DOCKERFILE.index(end)]):
            target = layers / source
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target)
            else:
                shutil.copyfile(ROOT / source, target)
        asked = subprocess.run(
            [sys.executable, str(layers / script), "--help"], capture_output=True, text=True, timeout=60, check=False
        )
        assert asked.returncode == 0, asked.stderr


def test_hidden_and_compiled_files_stay_out_of_copied_folders() -> None:
    last_admission = max(number for number, line in enumerate(CONTEXT) if line.startswith("!"))
    assert {"**/.*", "**/__pycache__", "**/*.pyc"} <= set(CONTEXT[last_admission:])


def test_packages_and_model_are_layers_before_the_code_that_changes_often() -> None:
    order = [
        DOCKERFILE.index(text) for text in ("image_environment.py --acc", "scripts/image_model.sh\n\n", "COPY gateway/")
    ]
    assert order == sorted(order)


def test_the_token_is_a_secret_and_no_argument() -> None:
    assert "--mount=type=secret,id=MODELSCOPE_API_TOKEN" in DOCKERFILE
    assert not re.search(r"^(ARG|ENV) .*TOKEN", DOCKERFILE, re.MULTILINE)
