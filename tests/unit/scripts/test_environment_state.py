"""When a virtual environment may be built upon, and when it is made anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.environment import State, Venv

WANTED = State(python="/usr/bin/python3.11 3.11.7", accelerator="cpu")


@pytest.mark.parametrize(
    ("found", "usable"),
    [
        (WANTED, True),
        (replace(WANTED, service="older lists", dev="older lists"), True),  # those are installed over it
        (replace(WANTED, unfinished=True), False),
        (replace(WANTED, accelerator="cuda"), False),
        (replace(WANTED, python="/usr/bin/python3.12 3.12.1"), False),
    ],
)
def test_what_may_be_built_upon(found: State, usable: bool) -> None:
    assert found.can_serve(WANTED) is usable


class RecordingVenv(Venv):
    """Notes what would be done, and does nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.created = 0

    def _created(self, made_for: State) -> State:
        self.created += 1
        self.folder.mkdir(exist_ok=True)
        return made_for

    def _install_list(self, name: str) -> None:
        pass


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    venv = RecordingVenv(tmp_path / ".venv")
    venv.prepare("cpu", dev=False)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to("/bin/true")
    venv.prepare("cpu", dev=False)
    assert venv.created == 1
    python.unlink()
    python.symlink_to("/no/such/python")  # as after an upgrade of the system's
    venv.prepare("cpu", dev=False)
    assert venv.created == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"python": 1}', '{"python": "x", "accelerator": "cpu", "other": 1}'])
def test_a_broken_state_file_is_no_state(tmp_path: Path, text: str) -> None:
    venv = RecordingVenv(tmp_path / ".venv")
    venv.folder.mkdir()
    (venv.folder / "installed.json").write_text(text)
    venv.prepare("cpu", dev=False)
    assert venv.created == 1
