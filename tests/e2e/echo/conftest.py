"""A real Triton with the echo engine: starts without weights, and shows everything but the model.

It serves a copy of the project whose repository has a second model, made as the documentation says.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Stacks
from tests.e2e.stack import ROOT, Stack
from tests.unit.docs.markdown import fences
from tests.unit.model.tiny_model import write_model_folder

MAX_MODEL_LEN = 512
COPIED = ("gateway", "runtime", "model_repository")


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a second model, which serves a folder of its own."""
    root = tmp_path_factory.mktemp("project")
    for entry in ROOT.iterdir():
        if entry.name in COPIED:  # a link would lead back to the project and its repository
            shutil.copytree(entry, root / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif not entry.name.startswith("."):
            (root / entry.name).symlink_to(entry)
    other = write_model_folder(tmp_path_factory.mktemp("model"))
    text = (ROOT / "docs" / "triton-model.md").read_text(encoding="utf-8")
    (commands,) = [fence.code for fence in fences(text) if fence.code.startswith("cp -r model_repository/llm")]
    assert "/models/other" in commands
    subprocess.run(["bash", "-ec", commands.replace("/models/other", str(other))], cwd=root, check=True, timeout=60)
    return root


@pytest.fixture
def echo_stack(stacks: Stacks, default_model: Path, two_models: Path) -> Stack:
    settings = {
        "MODEL_DIR": str(default_model),
        "USE_VLLM": "echo",
        "MAX_MODEL_LEN": str(MAX_MODEL_LEN),
        "TRITON_RUNTIME_DIR": str(ROOT / ".triton"),
    }
    return stacks.get("echo", settings, two_models)
