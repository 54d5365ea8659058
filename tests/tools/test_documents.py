"""The commands that the documents show are ones that the tools accept, and the search space to start from is one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.docs.markdown import ENGLISH, fences
from tools.evaluate import options as evaluate
from tools.merge import __main__ as merge
from tools.quantize import options as quantize
from tools.tune import options as tune
from tools.tune.space import read_space
from tools.upload import options as upload

PARSERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "evaluate": evaluate.parse,
    "merge": merge.parse,
    "quantize": quantize.parse,
    "tune": tune.parse,
    "upload": upload.parse,
}
CODE = "\n".join(fence.code for fence in fences(ENGLISH.read_text(encoding="utf-8")) if fence.language == "bash")
COMMANDS = re.findall(r"(\.venv-\w+)/bin/python -m tools\.(\w+) (.*)", CODE)


def test_every_tool_is_shown() -> None:
    assert {name for _, name, _ in COMMANDS} == set(PARSERS)


@pytest.mark.parametrize(("environment", "tool", "arguments"), COMMANDS, ids=lambda part: part[:40])
def test_a_shown_command_is_accepted(
    monkeypatch: pytest.MonkeyPatch, environment: str, tool: str, arguments: str
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "token")
    assert PARSERS[tool](shlex.split(arguments))
    assert environment == (".venv-quantize" if tool in {"merge", "quantize"} else ".venv-tools")


@pytest.mark.parametrize("tool", PARSERS)
def test_every_tool_has_a_help(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PARSERS[tool](["--help"])
    assert ended.value.code == 0
    assert f"python -m tools.{tool}" in capsys.readouterr().out


@pytest.mark.parametrize("tool", PARSERS)
def test_a_wrong_command_line_is_status_2(tool: str) -> None:
    with pytest.raises(SystemExit) as ended:
        PARSERS[tool](["--no-such-option"])
    assert ended.value.code == 2


def test_the_search_space_to_start_from() -> None:
    space = read_space(ROOT / "tools" / "tune" / "space.toml")
    assert set(space.start) == set(space.search)
    readme = ENGLISH.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in readme for name in [*space.fixed, *space.search])
