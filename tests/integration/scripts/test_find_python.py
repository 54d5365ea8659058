"""Which interpreter ``make`` takes: the first that runs, fits the pinned lists and can host Triton's Python backend."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.programs import write_program

ROOT = Path(__file__).resolve().parents[3]
DEAD_STUB = '#!/bin/bash\necho "python: command not found" >&2\nexit 127\n'  # a version manager's, for nothing
OLD = "#!/bin/bash\necho 3.9\n"
REAL = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
WITHOUT_VENV = f'#!/bin/bash\n[[ "$2" != *ensurepip* ]] || exit 1\nexec {sys.executable} "$@"\n'
UNFIT = "import sys\nprint('no shared libpython')\nsys.exit(1)\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder for stand-in interpreters, with the few commands that the script uses beside."""
    folder = tmp_path / "bin"
    for command in ("bash", "env", "dirname", "mktemp", "rm", "tail"):
        folder.mkdir(exist_ok=True)
        (folder / command).symlink_to(str(shutil.which(command)))
    return folder


def find(path: Path, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(root / "scripts" / "find_python.sh"), *arguments]
    environ = {"PATH": str(path), "TMPDIR": str(path.parent)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_candidates_that_cannot_be_used_are_passed_over(path: Path) -> None:
    write_program(path / "python3", DEAD_STUB)
    write_program(path / "python3.12", REAL)
    found = find(path)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{sys.executable}\n", "")
    assert [entry.name for entry in path.parent.iterdir()] == ["bin"]  # nothing left behind


def test_without_any_each_reason_is_told(path: Path) -> None:
    write_program(path / "python3", DEAD_STUB)
    write_program(path / "python3.12", OLD)
    write_program(path / "python3.11", WITHOUT_VENV)
    found = find(path)
    assert (found.returncode, found.stdout) == (1, "")
    reasons = found.stderr.splitlines()[1:]
    assert reasons[0] == "  python3: not available"
    assert reasons[1].startswith("  python3.12: is Python 3.9;")
    assert reasons[2].startswith("  python3.11: lacks venv or ensurepip: install python3.")


def test_the_one_that_is_named_is_the_only_candidate(path: Path) -> None:
    write_program(path / "python3", REAL)
    write_program(path / "mine", OLD)
    found = find(path, "mine")
    assert found.returncode == 1
    assert "mine: is Python 3.9" in found.stderr


def test_one_that_cannot_host_triton_is_refused_with_the_runtimes_reason(path: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    (project / "runtime").mkdir()
    (project / "runtime" / "__main__.py").write_text(UNFIT)
    write_program(path / "python3", REAL)
    found = find(path, root=project)
    assert found.returncode == 1
    assert "  python3: no shared libpython" in found.stderr
