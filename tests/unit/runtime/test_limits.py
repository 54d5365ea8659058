from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import limits
from runtime.devices import gpu_present
from runtime.limits import MIB, needed_shm_bytes, open_files_problem, shm_problem
from runtime.settings import RuntimeSettings, UseVllm


@dataclass(frozen=True)
class Size:
    """A file system with so much room."""

    f_bavail: int
    f_frsize: int = 4096

    @classmethod
    def mib(cls, number: int) -> Size:
        return cls(number * MIB // 4096)


@pytest.mark.parametrize(
    "use_vllm,gpu,installed,mib",
    [
        ("auto", False, True, 160),
        ("true", False, True, 160),
        ("true", False, False, 160),
        ("auto", False, False, 32),
        ("auto", True, True, 32),
        ("true", True, True, 32),
        ("false", False, True, 32),
    ],
)
def test_how_much_shared_memory_each_backend_needs(use_vllm: UseVllm, gpu: bool, installed: bool, mib: int) -> None:
    assert needed_shm_bytes(use_vllm, gpu, installed) == mib * MIB


def test_too_little_shared_memory_is_told_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "gpu_present", lambda: False)
    with_vllm = RuntimeSettings.from_env({"USE_VLLM": "true"})
    problem = shm_problem(with_vllm, lambda path: Size.mib(64))
    assert problem is not None
    assert "64 MiB free" in problem
    assert "160 MiB" in problem
    assert "--shm-size" in problem
    assert shm_problem(with_vllm, lambda path: Size.mib(160)) is None
    without = RuntimeSettings.from_env({"USE_VLLM": "false"})
    assert shm_problem(without, lambda path: Size.mib(64)) is None
    assert "32 MiB" in str(shm_problem(without, lambda path: Size.mib(31)))


def test_no_shared_memory_at_all_is_told() -> None:
    def absent(path: Path) -> Size:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    assert "/dev/shm" in str(shm_problem(RuntimeSettings.from_env({}), absent))


def test_too_few_open_files() -> None:
    assert "1024" in str(open_files_problem(1023))
    assert open_files_problem(1024) is None
    assert open_files_problem(resource.RLIM_INFINITY) is None


def test_a_gpu_is_told_by_its_device(tmp_path: Path) -> None:
    assert not gpu_present(tmp_path)
    (tmp_path / "mxcd").touch()
    assert gpu_present(tmp_path)
