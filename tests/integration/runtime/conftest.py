"""Fixtures of the tests that start real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runtime.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project folder to start services in; what a failed test leaves running is ended."""
    project = Project(tmp_path / "project with blanks")
    yield project
    project.close()


@pytest.fixture
def other_project(tmp_path: Path) -> Iterator[Project]:
    """A second one, with ports of its own."""
    project = Project(tmp_path / "other project")
    yield project
    project.close()
