"""``scripts/image_model.sh`` with stand-ins for the image's two interpreters: which of them fetches the model."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.programs import write_program

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("variables", "environment"),
    [
        ({}, ".venv"),
        ({"MODEL_ID": ""}, ".venv"),
        ({"MODEL_ID": " \n\t"}, ".venv"),
        ({"MODEL_ID": "bundled:smollm2"}, ".venv"),
        ({"MODEL_ID": " bundled:smollm2 "}, ".venv"),
        ({"MODEL_ID": "owner/name"}, ".venv-gateway"),
        ({"MODEL_ID": " hf:owner/name"}, ".venv-gateway"),
    ],
)
def test_the_bundled_model_needs_the_models_own_libraries(
    tmp_path: Path, variables: dict[str, str], environment: str
) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "image_model.sh", tmp_path / "scripts")
    for name in (".venv", ".venv-gateway"):
        write_program(tmp_path / name / "bin" / "python", f'#!/bin/bash\necho "{name} $*"\n')
    done = subprocess.run(
        [tmp_path / "scripts" / "image_model.sh"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{environment} download_model.py\n"), done.stderr
