"""Everything that can be known to fail is looked at before anything starts, and all of it is told at once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BadSetting, StartError
from runtime.interpreter import Interpreter
from runtime.limits import open_files_problem, shm_problem
from runtime.model_folder import check_model_folder
from runtime.mps_command import mps_problem
from runtime.ports import Listener
from runtime.settings import ANY_ADDRESS, PROJECT_ROOT, RuntimeSettings, gateway_python
from runtime.triton_runtime import Wheel, find_installed, stub_python_version, wheel_or_raise
from runtime.web_page_command import web_page_problem

SETTINGS_CHECK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One thing that must be so. `problem` returns one line if it is not."""

    name: str
    problem: Callable[[], str | None]


@dataclass(frozen=True)
class Problem:
    """What is wrong, in one line."""

    check: str
    text: str


def run_checks(checks: Iterator[Check]) -> list[Problem]:
    """Run all, whatever the first ones say. The same sentence of two processes is told once."""
    found: dict[str, Problem] = {}
    for check in checks:
        text = check.problem()
        if text:
            found.setdefault(text, Problem(check.name, text))
    return list(found.values())


def preflight(environ: Mapping[str, str], root: Path = PROJECT_ROOT) -> tuple[RuntimeSettings | None, list[Problem]]:
    """Check this machine and these settings. Writes nothing, starts nothing that stays.

    Returns:
        The settings, None if they cannot be read, and the problems, none if the service can be started.
    """
    problems = run_checks(machine_checks(environ, root))
    try:
        settings = RuntimeSettings.from_env(environ, root)
    except BadSetting as exc:
        if str(exc) not in {problem.text for problem in problems}:
            problems.append(Problem("settings", str(exc)))
        return None, problems
    return settings, problems + run_checks(service_checks(settings, environ))


def machine_checks(environ: Mapping[str, str], root: Path) -> Iterator[Check]:
    """What can be checked without the launcher's own settings."""
    yield Check("interpreter", Interpreter.running().problem)
    yield Check("supervisor", supervisor_problem)
    gateway = [str(gateway_python(environ) or sys.executable), "-m", "gateway", "--check"]
    yield Check("gateway settings", lambda: settings_problem(gateway, environ, root))
    model = [sys.executable, str(Path("model_repository/llm/1/settings.py")), "--check"]
    yield Check("model settings", lambda: settings_problem(model, environ, root))
    yield Check("open files", open_files_problem)


def service_checks(settings: RuntimeSettings, environ: Mapping[str, str]) -> Iterator[Check]:
    """What depends on the launcher's settings."""
    yield Check("triton", lambda: triton_problem(settings, environ))
    yield Check("model folder", lambda: model_folder_problem(settings.model_dir))
    for listener in _listeners(settings):
        yield Check(listener.port_variable, listener.problem)
    yield Check("ports", lambda: same_port_problem(settings))
    if settings.nvidia_mps == "true":
        yield Check("mps", lambda: mps_problem(environ))
    if settings.web_page:
        yield Check("web page", lambda: web_page_problem(settings.root))
        page = [sys.executable, "-m", "webui", "--check"]
        yield Check("web page settings", lambda: settings_problem(page, environ, settings.root))
    yield Check("shared memory", shm_problem)


def supervisor_problem() -> str | None:
    """One line if supervisord cannot be started."""
    installed = importlib.util.find_spec("supervisor") is not None
    return None if installed else f"supervisor is not installed in {sys.prefix}: pip install supervisor==4.3.0"


def settings_problem(command: list[str], environ: Mapping[str, str], root: Path) -> str | None:
    """Let a process check its own settings; its last line on stderr is the problem."""
    try:
        result = subprocess.run(  # the caller's variables are what is checked
            command,
            cwd=root,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SETTINGS_CHECK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"`{' '.join(command)}` cannot be run: {exc}"
    if result.returncode == 0:
        return None
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else f"`{' '.join(command)}` ended with status {result.returncode}"


def triton_problem(settings: RuntimeSettings, environ: Mapping[str, str]) -> str | None:
    """One line if there is no Triton that this Python can use. Assembles nothing."""
    python = Interpreter.running()
    try:
        found = find_installed(settings, environ)
        if found is None:
            wheel_or_raise(Wheel.installed(), python)
            return None
    except StartError as exc:
        return str(exc)
    wanted = stub_python_version(found)
    if wanted in (None, python.version_text):
        return None
    return f"the Python backend of {found.server} is for Python {wanted}, this is {python.version_text}: use that one"


def model_folder_problem(folder: Path) -> str | None:
    """All that is wrong with the model folder, in one line."""
    problems = check_model_folder(folder)
    return "; ".join(problems) or None


def same_port_problem(settings: RuntimeSettings) -> str | None:
    """One line if two servers are to listen on the same port."""
    names: dict[int, list[str]] = {}
    for listener in _listeners(settings):
        names.setdefault(listener.port, []).append(listener.port_variable)
    shared = [f"{' and '.join(users)} are both {port}" for port, users in names.items() if len(users) > 1]
    return "; ".join(shared) or None


def _listeners(settings: RuntimeSettings) -> list[Listener]:
    # Before Triton is known, its gRPC address is taken to be the narrow one: that fits both kinds.
    grpc = settings.grpc_address(embedded=True)
    page = Listener(settings.web_page_address, settings.web_page_port, "WEBUI_PORT", "WEBUI_ADDRESS")
    return [
        Listener(ANY_ADDRESS, settings.gateway_port, "GATEWAY_PORT", None),
        Listener(grpc, settings.triton_grpc_port, "TRITON_GRPC_PORT", "TRITON_GRPC_ADDRESS"),
        Listener(
            settings.triton_metrics_address,
            settings.triton_metrics_port,
            "TRITON_METRICS_PORT",
            "TRITON_METRICS_ADDRESS",
        ),
        *([page] if settings.web_page else []),
    ]


def report(problems: list[Problem]) -> str:
    """The problems as lines for a person."""
    return "".join(f"cannot start: {problem.check}: {problem.text}\n" for problem in problems)


def main() -> int:
    """Run the checks and print what they find."""
    _, problems = preflight(os.environ)
    sys.stderr.write(report(problems))
    if not problems:
        print("ready to start: all checks passed")
    return 1 if problems else 0
