"""The running service, and an environment for clients whose packages must not meet ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT, Stack

FOLDER = ROOT / ".venv-clients"
LIST = ROOT / "requirements" / "clients.txt"


@pytest.fixture(scope="session")
def clients_python() -> Path:
    """The interpreter of ``.venv-clients``, which is made anew when the pinned list is another one."""
    python, installed = FOLDER / "bin" / "python", FOLDER / LIST.name
    if not installed.exists() or installed.read_bytes() != LIST.read_bytes():
        shutil.rmtree(FOLDER, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True, timeout=120)
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "-qq",
            "--no-input",
            "--no-compile",
            "--no-deps",
            "--requirement",
            str(LIST),
        ]
        subprocess.run(pip, check=True, timeout=600)
        shutil.copyfile(LIST, installed)  # last: an interrupted installation is not taken for a whole one
    return python


@pytest.fixture(scope="session")
def service(course_qa_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service with the course's model; through transformers, as that starts soonest."""
    settings = {"MODEL_DIR": str(course_qa_model), "SERVED_MODEL_NAME": "course-qa", "USE_VLLM": "false"}
    stack = Stack.start(settings, tmp_path_factory.mktemp("service") / "log")
    try:
        yield stack
    finally:
        code = stack.stop()
    assert code == 0, stack.text()[-4000:]
