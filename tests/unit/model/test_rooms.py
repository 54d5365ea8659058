"""Who may import what inside the model's folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.model_package import MODEL_VERSION_DIR
from tests.conftest import ROOT

FILES = sorted(MODEL_VERSION_DIR.rglob("*.py"))
NAMES = [str(file.relative_to(MODEL_VERSION_DIR)) for file in FILES]
OTHER_ROOMS = {"gateway", "runtime", "tests", "download", "download_model", "tools", "webui", "llm_model", "fastapi"}
HEAVY = {"torch", "transformers", "vllm"}


def imports(file: Path) -> Iterator[str]:
    """The absolute module, or ``.name``, of every import."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file) if not name.startswith(".")}


def test_there_are_files() -> None:
    assert {"model.py", "engines/pool.py", "engines/vllm_engine.py"} <= set(NAMES)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_other_room_is_entered(file: Path) -> None:
    assert not packages(file) & OTHER_ROOMS


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_own_modules_are_imported_relatively(file: Path) -> None:
    own = {name.stem for name in FILES} | {"engines"}
    own -= sys.stdlib_module_names
    assert not packages(file) & own


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_two_files_alone_import_vllm(file: Path) -> None:
    assert ("vllm" in packages(file)) == (file.name in {"vllm_engine.py", "vllm_scheduler.py"})


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_the_transformers_engine_imports_torch(file: Path) -> None:
    if not file.name.startswith("transformers_"):
        assert "torch" not in packages(file)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_the_transformers_engine_imports_models(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    taken = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transformers"
        for alias in node.names
    }
    if not file.name.startswith("transformers_"):
        assert not {name for name in taken if "Model" in name or "Config" in name}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_triton_is_known_to_few_files(file: Path) -> None:
    knows = "triton_python_backend_utils" in packages(file)
    assert knows == (file.name in ("model.py", "tensors.py", "responder.py", "metrics.py"))


def test_settings_need_the_standard_library_only() -> None:
    for name in ("settings.py", "errors.py", "logs.py"):
        assert packages(MODEL_VERSION_DIR / name) <= sys.stdlib_module_names


def test_without_an_engine_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; import tests.conftest, tests.fakes.triton_python_backend_utils as fake\n"
        "sys.modules['triton_python_backend_utils'] = fake\n"
        "import llm_model.model\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
