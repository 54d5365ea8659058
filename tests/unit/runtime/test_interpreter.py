from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.__main__ import main
from runtime.interpreter import Interpreter


@pytest.fixture
def good(tmp_path: Path) -> Interpreter:
    """A Python in a folder of its own, with everything there."""
    executable = tmp_path / "bin" / "python3.11"
    executable.parent.mkdir()
    executable.touch()
    (tmp_path / "bin" / "python3").symlink_to("python3.11")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libpython3.11.so.1.0").touch()
    return Interpreter("CPython", (3, 11), executable, (tmp_path / "absent", tmp_path / "lib"), "libpython3.11.so.1.0")


def test_a_fit_one(good: Interpreter, tmp_path: Path) -> None:
    assert good.problem() is None
    assert good.shared_library_dir() == tmp_path / "lib"


@pytest.mark.parametrize("version", [(3, 9), (3, 13), (2, 7), (4, 0)])
def test_other_versions(good: Interpreter, version: tuple[int, int]) -> None:
    problem = replace(good, version=version).problem()
    assert problem is not None
    assert "3.10 to 3.12" in problem
    assert "install python3.11" in problem


def test_other_implementations(good: Interpreter) -> None:
    problem = replace(good, implementation="PyPy").problem()
    assert problem is not None
    assert "PyPy" in problem


def test_no_shared_library(good: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "lib" / "libpython3.11.so.1.0").unlink()
    problem = good.problem()
    assert problem is not None
    assert "install libpython3.11" in problem


def test_python3_beside_it_is_another(good: Interpreter, tmp_path: Path) -> None:
    """The stub would take that one's packages."""
    (tmp_path / "bin" / "python3").unlink()
    (tmp_path / "bin" / "python3").touch()
    problem = good.problem()
    assert problem is not None
    assert "-m venv" in problem


def test_every_problem_is_one_line(good: Interpreter, tmp_path: Path) -> None:
    bad = [replace(good, version=(3, 9)), replace(good, library_dirs=()), replace(good, executable=tmp_path / "python")]
    assert all("\n" not in (one.problem() or "\n") for one in bad)


def test_the_running_one_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    python = Interpreter.running()
    assert python.version == sys.version_info[:2]
    assert python.executable == Path(sys.executable)
    folder = python.shared_library_dir()
    assert folder is not None, "the service's tests need a Python that can host the stub"
    assert (folder / python.library_name).is_file()
    assert main(["check-interpreter"]) == 0
    assert python.version_text in capsys.readouterr().out


def test_check_interpreter_fails_with_the_reason(
    good: Interpreter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Interpreter, "running", lambda: replace(good, version=(3, 13)))
    assert main(["check-interpreter"]) == 1
    assert "3.13" in capsys.readouterr().err
