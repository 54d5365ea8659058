"""What every test may use: the model's modules under an importable name, and the optional shared test material."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import benchmarks.model_package  # noqa: F401 - makes `llm_model` importable

ROOT = Path(__file__).resolve().parent.parent
# They drive real processes beside whatever else the machine does: one more try each, which the summary reports.
SECOND_TRY = {"clients", "deploy", "e2e", "faults", "image", "integration", "tools", "webui"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] in SECOND_TRY:
            item.add_marker(pytest.mark.flaky(reruns=1))


def _find_shared_dir() -> Path | None:
    named = os.environ.get("SHARED_DIR", "").strip()
    if named and not Path(named).is_dir():
        raise pytest.UsageError(f"SHARED_DIR={named}: not a folder")  # a typing mistake must not skip tests
    candidate = Path(named) if named else ROOT.parent / "shared"
    return candidate.resolve() if candidate.is_dir() else None


@pytest.fixture(scope="session")
def shared_dir() -> Path | None:
    """The folder of shared test material (``$SHARED_DIR``, else ``shared`` beside the project), if there is one."""
    return _find_shared_dir()


@pytest.fixture(scope="session")
def course_qa_model(shared_dir: Path | None) -> Path:
    """The model folder ``course-qa``. Skips only where there is no shared folder at all."""
    if shared_dir is None:
        pytest.skip("no shared test material: set SHARED_DIR or put `shared` beside the project")
    folder = shared_dir / "models" / "course-qa"
    assert (folder / "config.json").is_file(), f"{folder} is missing or incomplete"
    return folder
