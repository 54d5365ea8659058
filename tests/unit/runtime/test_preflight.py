from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.preflight import (
    Check,
    Problem,
    model_folder_problem,
    preflight,
    report,
    run_checks,
    same_port_problem,
    settings_problem,
    triton_problem,
)
from runtime.settings import RuntimeSettings

PROJECT_FILES = {
    "gateway/__init__.py": "",
    "gateway/__main__.py": "import os, sys; sys.exit(os.environ.get('BAD_GATEWAY'))",
    "model_repository/llm/1/settings.py": "import os, sys; sys.exit(os.environ.get('BAD_MODEL'))",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose programs check their settings as they are told to."""
    for name, text in PROJECT_FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_all_checks_run_and_the_same_sentence_is_told_once() -> None:
    def checks() -> Iterator[Check]:
        yield Check("one", lambda: "LOG_LEVEL=loud: debug, info, warning or error")
        yield Check("two", lambda: None)
        yield Check("three", lambda: "LOG_LEVEL=loud: debug, info, warning or error")
        yield Check("four", lambda: "no room")

    problems = run_checks(checks())
    assert [(problem.check, problem.text[:9]) for problem in problems] == [("one", "LOG_LEVEL"), ("four", "no room")]


def test_problems_of_every_kind_are_told_together(project: Path) -> None:
    environ = {
        **os.environ,
        "BAD_GATEWAY": "LOG_FORMAT=xml: text or json",
        "BAD_MODEL": "DTYPE=float3: auto or bfloat16",
        "MODEL_DIR": str(project / "absent"),
        "TRITON_SERVER_DIR": str(project),
        "GATEWAY_PORT": "18000",
        "TRITON_METRICS_PORT": "18000",
        "SHUTDOWN_GRACE_S": "1",
    }
    settings, problems = preflight(environ, project)
    assert settings is not None
    names = {problem.check for problem in problems}
    assert {"gateway settings", "model settings", "model folder", "triton", "ports"} <= names
    assert all("\n" not in problem.text for problem in problems)


def test_a_bad_setting_of_the_launcher_does_not_hide_the_others(project: Path) -> None:
    environ = {**os.environ, "TRITON_GRPC_PORT": "http", "BAD_MODEL": "DTYPE=float3: auto or bfloat16"}
    settings, problems = preflight(environ, project)
    assert settings is None
    text = report(problems)
    assert "TRITON_GRPC_PORT=http: " in text
    assert "DTYPE=float3: " in text


def test_a_bad_setting_that_two_report_is_told_once(project: Path) -> None:
    line = "GATEWAY_PORT=http: a TCP port, 1 to 65535"
    _, problems = preflight({**os.environ, "GATEWAY_PORT": "http", "BAD_GATEWAY": line}, project)
    assert report(problems).count("GATEWAY_PORT") == 1


def test_a_bad_address_is_blamed_on_its_own_variable(project: Path) -> None:
    def told(address: str) -> str:
        _, problems = preflight({**os.environ, "TRITON_METRICS_ADDRESS": address}, project)
        return report(problems)

    assert "TRITON_METRICS_ADDRESS=everywhere: an IP address\n" in told("everywhere")
    assert "; TRITON_METRICS_ADDRESS names another\n" in told("203.0.113.7")


def test_the_last_line_of_a_failed_settings_check_is_the_problem(project: Path) -> None:
    check = ["-c", "import sys; sys.exit('a warning\\nTOP_P=2: 0 to 1')"]
    assert settings_problem([sys.executable, *check], os.environ, project) == "TOP_P=2: 0 to 1"
    assert settings_problem([sys.executable, "-c", ""], os.environ, project) is None
    assert "status 3" in str(settings_problem([sys.executable, "-c", "raise SystemExit(3)"], os.environ, project))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    problem = model_folder_problem(tmp_path)
    assert problem is not None
    assert "config.json" in problem
    assert "\n" not in problem


def test_ports_must_differ() -> None:
    def problem(**environ: str) -> str | None:
        return same_port_problem(RuntimeSettings.from_env(environ))

    assert problem() is None
    assert problem(GATEWAY_PORT="8002") == "GATEWAY_PORT and TRITON_METRICS_PORT are both 8002"


def test_a_triton_whose_stub_is_for_another_python(tmp_path: Path) -> None:
    backend = tmp_path / "backends/python"
    backend.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tritonserver").touch()
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).touch()
    (backend / "triton_python_backend_stub").write_bytes(b"\0libpython3.7.so.1.0\0")
    environ = {"TRITON_SERVER_DIR": str(tmp_path)}
    problem = triton_problem(RuntimeSettings.from_env(environ), environ)
    assert problem is not None
    assert "Python 3.7" in problem


def test_the_report_names_the_check() -> None:
    assert report([Problem("ports", "both 8000")]) == "cannot start: ports: both 8000\n"
    assert report([]) == ""
