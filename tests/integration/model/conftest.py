"""The real engines need nothing of Triton; what imports its module by the way gets the fake."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

from benchmarks.model_package import MODEL_VERSION_DIR

if "triton_python_backend_utils" not in sys.modules:
    sys.modules["triton_python_backend_utils"] = importlib.import_module("tests.fakes.triton_python_backend_utils")


@pytest.fixture(scope="session", autouse=True)
def _model_folder_in_child_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """vLLM's own processes import our scheduler by its name, from the same search path but without our alias."""
    folder = tmp_path_factory.mktemp("importable")
    (folder / "llm_model").symlink_to(MODEL_VERSION_DIR)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))
