from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.devices import gpu_present
from runtime.limits import MIB, open_files_problem, shm_problem


@dataclass(frozen=True)
class Size:
    """A file system with so much room."""

    f_bavail: int
    f_frsize: int = 4096

    @classmethod
    def mib(cls, number: int) -> Size:
        return cls(number * MIB // 4096)


def test_too_little_shared_memory_is_told_with_both_numbers() -> None:
    problem = shm_problem(lambda path: Size.mib(31))
    assert problem is not None
    assert "31 MiB free" in problem
    assert "32 MiB" in problem
    assert "--shm-size" in problem


def test_dockers_64_mib_of_shared_memory_are_enough() -> None:
    assert shm_problem(lambda path: Size.mib(64)) is None


def test_no_shared_memory_at_all_is_told() -> None:
    def absent(path: Path) -> Size:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    assert "/dev/shm" in str(shm_problem(absent))


def test_too_few_open_files() -> None:
    assert "1024" in str(open_files_problem(1023))
    assert open_files_problem(1024) is None
    assert open_files_problem(resource.RLIM_INFINITY) is None


@pytest.mark.parametrize("device, seen", [("nvidia0", True), ("nvidia3", True), ("mxcd", True), ("nvidiactl", False)])
def test_a_gpu_is_told_by_its_device(tmp_path: Path, device: str, seen: bool) -> None:
    assert not gpu_present(tmp_path)
    (tmp_path / device).touch()
    assert gpu_present(tmp_path) is seen
