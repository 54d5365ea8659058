"""One store of images for the session, on a plain Debian made once. `make test-image` runs these; they need root."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import builder, machine_pip
from tests.image.builder import Builder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    problem = builder.missing_tools()
    if problem:
        pytest.fail(problem, pytrace=False)
    folder = tmp_path_factory.mktemp("images")
    store = Builder(folder / "store", folder / "build.log")
    yield store
    store.remove()


@pytest.fixture(scope="session")
def debian(images: Builder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root folder of a plain Debian."""
    folder = tmp_path_factory.mktemp("base") / "debian"
    yield builder.debian(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pip_volumes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return machine_pip.volumes(tmp_path_factory.mktemp("pip"))
