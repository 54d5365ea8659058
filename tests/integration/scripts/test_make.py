"""``make`` and ``.ci/run`` with stand-ins for the interpreter: order, environment, signals, exit codes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.programs import write_program

ROOT = Path(__file__).resolve().parents[3]

# Stands for `.venv/bin/python`: runs the env file script for real, notes what else it is asked for, and plays launcher.
PYTHON = f"""#!/bin/bash
case "$*" in
scripts/env_file.py*) exec {sys.executable} "$@" ;;
download_model.py) echo "fetch MODEL_ID=${{MODEL_ID-}}" >>calls; echo models/x; exit ${{FETCH_STATUS:-0}} ;;
"-m runtime serve")
    echo "serve COLOUR=${{COLOUR-}} MODEL_DIR=${{MODEL_DIR-}}" >>calls
    exec {sys.executable} launcher.py ;;
"-m pytest"*) env >environment; exit ${{PYTEST_STATUS:-0}} ;;
esac
"""
LAUNCHER = """import os, signal, sys, time
def drain(number, frame):
    os.write(1, b"drained\\n")
    sys.exit(0)
signal.signal(signal.SIGINT, drain)
os.write(1, b"ready\\n")
if os.environ.get("LAUNCHER_STATUS"):
    sys.exit(int(os.environ["LAUNCHER_STATUS"]))
time.sleep(60)
"""


@dataclass(frozen=True)
class Project:
    """The real Makefile and scripts around stand-ins."""

    folder: Path

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], **variables}
        return subprocess.run(
            ["make", *arguments], cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    def serve(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """``make serve`` with the environment taken as ready, and a launcher that ends at once."""
        return self.make("-o", "venv", "serve", **{"LAUNCHER_STATUS": "3", **variables})

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    shutil.copytree(ROOT / "scripts", made.folder / "scripts")
    shutil.copy(ROOT / "Makefile", made.folder)
    write_program(made.folder / ".venv" / "bin" / "python", PYTHON)
    (made.folder / "launcher.py").write_text(LAUNCHER)
    return made


def test_help_lists_every_target(project: Project) -> None:
    listed = set(re.findall(r"^  make ([a-z-]+) +\S", project.make("help").stdout, re.MULTILINE))
    declared = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared
    assert listed == set(declared[1].replace("\\\n", " ").split()) - {"venv-dev", "venv-web-test"}  # steps of others
    assert project.make().stdout == project.make("help").stdout


def test_serve_fetches_the_model_and_then_starts_the_launcher(project: Project) -> None:
    done = project.serve(MODEL_ID="hf:a/b")
    assert project.calls() == ["fetch MODEL_ID=hf:a/b", "serve COLOUR= MODEL_DIR="]
    assert "ready" in done.stdout
    assert done.returncode != 0  # the launcher's 3


@pytest.mark.parametrize(("model_id", "fetched"), [("", False), (" ", False), ("hf:a/b", True)])
def test_a_folder_without_a_models_name_is_served_as_it_is(project: Project, model_id: str, fetched: bool) -> None:
    project.serve(MODEL_DIR="/some/folder", MODEL_ID=model_id)
    assert project.calls()[-1] == "serve COLOUR= MODEL_DIR=/some/folder"
    assert project.calls()[0].startswith("fetch") is fetched


@pytest.mark.parametrize(("draft_id", "fetched"), [(" ", False), ("hf:a/draft", True)])
def test_a_draft_model_is_fetched_for_a_folder_too(project: Project, draft_id: str, fetched: bool) -> None:
    project.serve(MODEL_DIR="/some/folder", SPEC_DRAFT_MODEL_ID=draft_id)
    assert project.calls() == ["fetch MODEL_ID="] * fetched + ["serve COLOUR= MODEL_DIR=/some/folder"]


def test_a_blank_folder_is_no_folder(project: Project) -> None:
    project.serve(MODEL_DIR=" ")
    assert project.calls()[0] == "fetch MODEL_ID="


def test_the_env_file_is_read_and_the_callers_environment_wins(project: Project) -> None:
    (project.folder / ".env").write_text("MODEL_ID=hf:from/file\nCOLOUR=red green\n")
    project.serve()
    project.serve(COLOUR="blue")
    assert project.calls() == [
        "fetch MODEL_ID=hf:from/file",
        "serve COLOUR=red green MODEL_DIR=",
        "fetch MODEL_ID=hf:from/file",
        "serve COLOUR=blue MODEL_DIR=",
    ]


def test_nothing_is_started_without_a_model(project: Project) -> None:
    done = project.serve(FETCH_STATUS="1")
    assert done.returncode != 0
    assert project.calls() == ["fetch MODEL_ID="]


def test_ctrl_c_ends_the_service_without_an_error_message(project: Project) -> None:
    with subprocess.Popen(
        ["make", "-o", "venv", "serve"],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
            rest, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert rest == "drained\n"
    assert process.returncode == -signal.SIGINT  # make's way to end; the launcher ended with 0


def test_tests_do_not_see_the_callers_settings(project: Project) -> None:
    variables = {"MODEL_ID": "hf:a/b", "GATEWAY_PORT": "1", "API_KEY": "x", "SHARED_DIR": "/with a space", "CI": "true"}
    done = project.make("-o", "venv-dev", "test", **variables)
    assert done.returncode == 0, done.stderr
    seen = (project.folder / "environment").read_text().splitlines()
    assert {"SHARED_DIR=/with a space", "CI=true"} <= set(seen)
    assert not [line for line in seen if line.startswith(("MODEL_ID", "GATEWAY_PORT", "API_KEY"))]


@pytest.mark.parametrize(
    ("failing", "status"), [("none", 0), ("lint", 1), ("test", 1)], ids=["all pass", "checks fail", "tests fail"]
)
def test_ci_runs_everything_and_says_whether_all_passed(tmp_path: Path, failing: str, status: int) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    write_program(tmp_path / "bin" / "make", f'#!/bin/bash\necho "ran $1"\n[ "$1" != {failing} ]\n')
    write_program(tmp_path / "bin" / "dpkg-query", "#!/bin/bash\necho install ok installed\n")
    environ = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == status
    ran = re.findall(r"^ran (\S+)", done.stdout, re.MULTILINE)
    assert {"lint", "test"} <= set(ran)
    assert ran == re.findall(r"^run make (\S+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
