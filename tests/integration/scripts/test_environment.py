"""``scripts/environment.py`` with the real venv and pip, on a small project and an index that is a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.wheels import write_wheel

ROOT = Path(__file__).resolve().parents[3]
BROKEN = "raise ImportError('libcudart.so: cannot open shared object file')"


@dataclass(frozen=True)
class Project:
    """A project with the real scripts, short pinned lists and its own package index."""

    folder: Path

    @property
    def index(self) -> Path:
        return self.folder / "index"

    def pin(self, name: str, *lines: str) -> None:
        (self.folder / "requirements" / name).write_text("# a comment\n" + "".join(f"{line}\n" for line in lines))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the script as `make` does, with pip looking nowhere but in the project's index."""
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, "scripts/environment.py", "--accelerator", "cpu", *arguments]
        environ = {"PATH": os.environ["PATH"], **pip}
        return subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=120, check=False
        )

    def installed(self) -> dict[str, str]:
        """What the environment holds: package → version, pip's own aside."""
        command = [".venv/bin/python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
        listed = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=True)
        found = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
        return {name: version for name, version in found.items() if name not in {"pip", "setuptools"}}

    def state(self) -> dict[str, object]:
        state: dict[str, object] = json.loads((self.folder / ".venv" / "installed.json").read_text())
        return state


@pytest.fixture(scope="module")
def fresh_install(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first installation; tests work on copies of it."""
    made = Project(tmp_path_factory.mktemp("fresh") / "project")
    shutil.copytree(ROOT / "scripts", made.folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (made.folder / "requirements").mkdir()
    write_wheel(made.index, "service", "1.0", requires=["unwanted"])
    write_wheel(made.index, "numberskit", "1.0")
    write_wheel(made.index, "torch", "9.0+cpu")
    write_wheel(made.index, "torch", "9.0", BROKEN)
    write_wheel(made.index, "linter", "1.0")
    made.pin("cpu.txt", "service==1.0", "numberskit==1.0")
    made.pin("torch-cpu.txt", "torch==9.0")
    made.pin("vllm-cpu.txt", f"vllm==1.0 --hash=sha256:{write_wheel(made.index, 'vllm', '1.0')}")
    made.pin("bundles.txt", f"bundle==1.0 --hash=sha256:{write_wheel(made.index, 'bundle', '1.0')}")
    made.pin("dev.txt", "linter==1.0")
    first = made.run()
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Making .venv")
    return made


@pytest.fixture
def project(fresh_install: Project, tmp_path: Path) -> Project:
    shutil.copytree(fresh_install.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


INSTALLED = {"service": "1.0", "numberskit": "1.0", "torch": "9.0+cpu", "vllm": "1.0", "bundle": "1.0"}


def test_the_lists_are_installed_without_dependencies_and_with_the_cpu_build_of_torch(fresh_install: Project) -> None:
    assert fresh_install.installed() == INSTALLED


def test_what_is_done_is_skipped_and_what_changed_is_installed(project: Project) -> None:
    again = project.run()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    with_tools = project.run("--dev")
    assert with_tools.stdout.startswith("Installing what tests and checks need")
    assert project.installed() == {**INSTALLED, "linter": "1.0"}

    write_wheel(project.index, "service", "2.0")
    project.pin("cpu.txt", "service==2.0", "numberskit==1.0")
    changed = project.run()
    assert changed.returncode == 0, changed.stderr
    assert "Making" not in changed.stdout
    assert project.installed() == {**INSTALLED, "service": "2.0", "linter": "1.0"}


def test_an_interrupted_environment_is_made_anew(project: Project) -> None:
    venv = project.folder / ".venv"
    (venv / "left-over").touch()
    (venv / "installed.json").write_text(json.dumps({**project.state(), "unfinished": True}))
    again = project.run()
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Making .venv")
    assert not (venv / "left-over").exists()
    assert project.state()["unfinished"] is False
    assert project.installed() == INSTALLED


def test_a_package_that_cannot_be_had_is_named_and_installed_when_it_can(project: Project) -> None:
    project.pin("cpu.txt", "service==3.0")
    failed = project.run()
    assert failed.returncode == 1
    assert "requirements/cpu.txt could not be installed" in failed.stderr
    assert "service==3.0" in failed.stderr
    assert "Traceback" not in failed.stderr

    write_wheel(project.index, "service", "3.0")
    retried = project.run()
    assert retried.returncode == 0, retried.stderr
    assert "Making" not in retried.stdout
    assert project.installed()["service"] == "3.0"


def test_a_wheel_that_is_not_the_pinned_one_is_refused(project: Project) -> None:
    pinned = write_wheel(project.index, "bundle", "1.1")
    project.pin("bundles.txt", f"bundle==1.1 --hash=sha256:{pinned}")
    write_wheel(project.index, "bundle", "1.1", source="print('something else')")
    failed = project.run()
    assert failed.returncode == 1
    assert "requirements/bundles.txt could not be installed" in failed.stderr
    assert "HASHES" in failed.stderr
    assert project.installed()["bundle"] == "1.0"


def test_without_a_cpu_build_the_registrys_torch_comes_with_what_it_needs(project: Project) -> None:
    project.pin("torch-cpu.txt", "torch==9.1")
    write_wheel(project.index, "torch", "9.1", "import cudaruntime", requires=["cudaruntime", "numberskit>=1"])
    write_wheel(project.index, "cudaruntime", "1.0")
    write_wheel(project.index, "numberskit", "2.0")  # newer than the pin, and must not come in through torch
    done = project.run()
    assert done.returncode == 0, done.stderr
    assert project.installed() == {**INSTALLED, "torch": "9.1", "cudaruntime": "1.0"}


def test_a_torch_that_cannot_be_imported_is_not_kept(project: Project) -> None:
    project.pin("torch-cpu.txt", "torch==9.1")
    write_wheel(project.index, "torch", "9.1", BROKEN)
    failed = project.run()
    assert failed.returncode == 1
    assert "torch could not be installed" in failed.stderr
    assert "libcudart.so" in failed.stderr
    assert "torch" not in project.installed()
