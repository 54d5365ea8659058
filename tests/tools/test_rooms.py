"""The tools talk HTTP to the service and share no code with it; what needs torch is imported when it is needed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "tools").rglob("*.py"))
OTHER_ROOMS = {"gateway", "runtime", "download", "download_model", "llm_model", "scripts", "tests", "webui"}
# In one of the two environments only, or slow to import.
LATE = {"torch", "transformers", "peft", "llmcompressor", "datasets", "optuna", "matplotlib", "modelscope_hub", "tomli"}

by_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))


def packages(nodes: Iterator[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@by_file
def test_no_other_room_is_entered(file: Path) -> None:
    assert not packages(ast.walk(ast.parse(file.read_text(encoding="utf-8")))) & OTHER_ROOMS


@by_file
def test_heavy_packages_are_imported_late(file: Path) -> None:
    assert not packages(iter(ast.parse(file.read_text(encoding="utf-8")).body)) & LATE
