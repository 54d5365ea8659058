"""What the launcher knows of the web page: off by default, checked before the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import BadSetting
from runtime.preflight import preflight, same_port_problem
from runtime.readiness import ready_line
from runtime.settings import RuntimeSettings
from runtime.web_page_command import NOT_FOR_THE_PAGE, web_page_problem, web_page_python


def test_it_is_off_unless_asked_for() -> None:
    assert not RuntimeSettings.from_env({}).web_page
    assert RuntimeSettings.from_env({"WEBUI": "1"}).web_page
    with pytest.raises(BadSetting, match="WEBUI=perhaps: 0 or 1"):
        RuntimeSettings.from_env({"WEBUI": "perhaps"})


def test_its_own_environment_is_taken_where_it_is(tmp_path: Path) -> None:
    own = tmp_path / ".venv-web" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert web_page_python(tmp_path) == str(own)
    assert web_page_problem(tmp_path) is None


def test_of_the_secrets_it_gets_the_gateways_key_alone() -> None:
    assert {"ADMIN_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS"} < set(NOT_FOR_THE_PAGE)
    assert "API_KEY" not in NOT_FOR_THE_PAGE


def test_its_bad_settings_and_its_port_are_told_before_the_start() -> None:
    _, problems = preflight({"WEBUI": "1", "WEBUI_GATEWAY_URL": "there"})
    assert any(one.text.startswith("WEBUI_GATEWAY_URL=there: ") for one in problems), problems
    _, problems = preflight({"WEBUI_GATEWAY_URL": "there"})
    assert not [one for one in problems if "WEBUI" in one.text]
    both = RuntimeSettings.from_env({"WEBUI": "1", "WEBUI_PORT": "8000"})
    assert "WEBUI_PORT are both 8000" in str(same_port_problem(both))


def test_the_ready_line_has_its_address() -> None:
    assert "web page http://127.0.0.1:7861" in ready_line(
        RuntimeSettings.from_env({"WEBUI": "1", "WEBUI_PORT": "7861"}), 1.0
    )
    assert "web page" not in ready_line(RuntimeSettings.from_env({}), 1.0)
