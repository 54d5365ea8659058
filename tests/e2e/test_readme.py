"""The README's snippets do what it says: they are taken from the file and run, and what it shows is what comes out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import ROOT, Ports, Stack, descendants
from tests.unit.docs.markdown import ENGLISH, Fence, fences

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

PROGRAMS = {"bash": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-c")}
ABRIDGED = "…"  # as a key in a shown answer: there are more
SNIPPETS = fences(ENGLISH.read_text(encoding="utf-8"))


def called(snippet: Fence) -> str:
    """The address that a snippet calls: a name for its test."""
    return "".join(re.findall(r"127\.0\.0\.1:([\w/.]+)", snippet.code))


@pytest.mark.parametrize("snippet", [one for one in SNIPPETS if one.marker == "run"], ids=called)
def test_a_snippet_runs_and_prints_what_is_shown(stack: Stack, snippet: Fence) -> None:
    printed = run(PROGRAMS[snippet.language], at_ports(snippet.code, stack.ports))
    assert printed.strip()
    if snippet.answer:
        assert_like(json.loads(printed), json.loads(snippet.answer))


def test_the_command_to_serve_serves_and_its_curl_answers(tmp_path: Path) -> None:
    """The whole first screen: the command, the ready line, the ``curl`` in it, Ctrl-C."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("needs the environment that make made: run it as `make test` does")
    (command,) = [one.code for one in SNIPPETS if one.marker == "serve"]
    service = in_foreground(command, tmp_path / "log")
    try:
        service.wait_ready(timeout_s=500)  # with the bundled model's conversion, where nobody has done it yet
        service.wait_for(lambda: "try: curl" in service.text(), 10, "telling what to try")
        (curl,) = re.findall(r"^ready after .*; try: (curl .*)$", service.text(), re.MULTILINE)
        assert_like(json.loads(run(PROGRAMS["bash"], curl)), {"response": ""})
        service.pids |= descendants(service.process.pid)
        os.killpg(service.process.pid, signal.SIGINT)
        service.process.wait(timeout=60)
    finally:
        service.stop()  # fails if anything is left running
    assert service.text().rstrip().endswith("stopped")


def in_foreground(command: str, log: Path) -> Stack:
    """Start ``make serve`` as in a terminal of its own, on free ports, with none of the caller's settings."""
    ports = Ports.free()
    # `make test` has made the environment a moment ago; making it anew would pull it from under the running tests.
    command = re.sub(r"\bmake\b", "make -o venv", command)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*PROGRAMS["bash"], f"exec {command}"],
            cwd=ROOT,
            env={**environment(), **port_variables(ports)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Stack(process, ports, log)


def run(program: tuple[str, ...], code: str) -> str:
    """Run a snippet; it must succeed. Returns what it printed."""
    done = subprocess.run(
        [*program, code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def at_ports(code: str, ports: Ports) -> str:
    """The snippet for a service on other ports than the README's."""
    moved = {"8000": ports.gateway, "8001": ports.grpc, "8002": ports.metrics}
    changed, count = re.subn(r"(?<=127\.0\.0\.1:)(8000|8001|8002)\b", lambda match: str(moved[match[1]]), code)
    assert count, "a snippet that does not talk to the service proves nothing about it"
    return changed


def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}


def port_variables(ports: Ports) -> dict[str, str]:
    numbers = {
        "GATEWAY_PORT": ports.gateway,
        "TRITON_GRPC_PORT": ports.grpc,
        "TRITON_METRICS_PORT": ports.metrics,
    }
    return {name: str(number) for name, number in numbers.items()}


def assert_like(actual: Any, shown: Any, place: str = "answer") -> None:
    """Same keys, same kinds of values, lists of the same length; texts and numbers may be others."""
    if isinstance(shown, dict):
        assert isinstance(actual, dict), place
        names = set(shown) - {ABRIDGED}
        assert names <= set(actual) if ABRIDGED in shown else names == set(actual), f"{place}: {sorted(actual)}"
        for name in names:
            assert_like(actual[name], shown[name], f"{place}.{name}")
    elif isinstance(shown, list):
        assert isinstance(actual, list), place
        assert len(actual) == len(shown), place
        for number, (one, other) in enumerate(zip(actual, shown, strict=True)):
            assert_like(one, other, f"{place}[{number}]")
    else:
        assert kind(actual) == kind(shown), f"{place} is {actual!r}"


def kind(value: Any) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
