"""The file ``.env``: what its lines mean, who wins, and that the command takes the process's place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.env_file import EnvFileError, merged, parse

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "env_file.py"
SHOW = [sys.executable, "-c", "import os; print(os.getpid(), os.environ.get('COLOUR'))"]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("MODEL_ID=bundled:smollm2", "MODEL_ID", "bundled:smollm2"),
        ("export A=b", "A", "b"),
        ("A = b c ", "A", "b c"),
        ("A=", "A", ""),
        ("A='b c'", "A", "b c"),
        ('A="b=c"', "A", "b=c"),
        ("A=\"b'", "A", "\"b'"),
        ("A='", "A", "'"),
        ("STOP_STRINGS=<|im_end|>,<|endoftext|>", "STOP_STRINGS", "<|im_end|>,<|endoftext|>"),
        ("A=$HOME `id` # not a comment", "A", "$HOME `id` # not a comment"),
        ("SYSTEM_PROMPT=你是答题助手。", "SYSTEM_PROMPT", "你是答题助手。"),
    ],
)
def test_a_line(line: str, name: str, value: str) -> None:
    assert parse(f"# comment\n\n{line}\r\n", ".env") == {name: value}


@pytest.mark.parametrize("line", ["MODEL_ID", "1A=b", "A-B=c", "=x"])
def test_a_line_that_sets_nothing_is_named_without_its_text(line: str) -> None:
    with pytest.raises(EnvFileError, match=r"^\.env, line 2: not a NAME=value line$"):
        parse(f"A=b\n{line}", ".env")


def test_the_environment_wins_even_when_empty() -> None:
    assert merged({"A": "", "B": "caller"}, {"A": "file", "C": "file"}) == {"A": "", "B": "caller", "C": "file"}


def start(file: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    environ = {"PATH": os.environ["PATH"], **variables}
    arguments = [sys.executable, str(SCRIPT), str(file), *command]
    return subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_replaces_this_process(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("\ufeffCOLOUR=blue\n", encoding="utf-8")  # some editors write a byte order mark
    process = start(file, *SHOW)
    out, _ = process.communicate(timeout=30)
    assert out.split() == [str(process.pid), "blue"]


def test_no_file_is_no_error(tmp_path: Path) -> None:
    out, _ = start(tmp_path / ".env", *SHOW, COLOUR="red").communicate(timeout=30)
    assert out.split()[1] == "red"


def test_a_broken_file_or_command_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("TOKEN secret")
    process = start(file, *SHOW)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (2, ".env, line 1: not a NAME=value line\n")
    process = start(tmp_path / "none", "/no/such/command")
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (127, "/no/such/command: No such file or directory\n")
