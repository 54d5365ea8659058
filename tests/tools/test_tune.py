"""``python -m tools.tune`` with a stand-in for the service: what it finds, what it survives, and that it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.environment import Environment, SettingsError
from scripts.env_file import parse
from tests.conftest import ROOT
from tests.e2e.stack import is_running
from tests.fakes.programs import write_program
from tools.console import run
from tools.errors import UsageError
from tools.tune import report, service
from tools.tune.__main__ import main
from tools.tune.space import Choice, Range, Value, is_on, read_space

LAUNCHER = ROOT / "tests" / "tools" / "fakes" / "launcher.py"


@pytest.fixture
def study(tmp_path: Path, course_qa_model: Path) -> Study:
    return Study(tmp_path, course_qa_model)


class Study:
    """A folder with a question set, a stand-in for the service's interpreter, and a search in it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.out = folder / "study"
        self._folder = folder
        self._model = model
        rows = [{"prompt": f"{number}", "reference": f"答案 {number}"} for number in range(4)]
        (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_program(folder / "python", f'#!/bin/bash\nexec {sys.executable} {LAUNCHER} "$@"\n')

    def arguments(self, space: str, *more: object) -> list[str]:
        (self._folder / "space.toml").write_text(space)
        places = [self._folder / "space.toml", self._folder / "set.jsonl", "--out", self.out, "--model", self._model]
        fixed = ["--python", self._folder / "python", "--threshold", 0.9, "--seed", 1, "--ready-timeout", 60]
        return [str(one) for one in (*places, *fixed, *more)]

    def tune(self, space: str, *more: object) -> int:
        return run(main, self.arguments(space, *more))

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "result.json").read_text(encoding="utf-8"))
        return found


def test_the_fastest_settings_that_pass_win(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    space = "[fixed]\nBATCH_MODE = true\n[search]\nSPEED = [0.0, 1.5]\nGOOD = [1, 0]\n[start]\nSPEED = 0.0\nGOOD = 0\n"
    assert study.tune(space, "--trials", 4, "--repeats", 2) == 0
    assert study.result["best"]["settings"] == {"SPEED": 0.0, "GOOD": 1}
    tried = {(trial["settings"]["SPEED"], trial["settings"]["GOOD"]) for trial in study.result["trials"]}
    assert tried == {(0.0, 0), (0.0, 1), (1.5, 0), (1.5, 1)}  # nothing is measured twice while there is something new
    first = study.result["trials"][0]
    assert (first["settings"], first["passed"]) == ({"SPEED": 0.0, "GOOD": 0}, False)
    written = parse((study.out / "best.env").read_text(), "best.env")  # as `make serve` reads it
    assert written == {"BATCH_MODE": "1", "MODEL_DIR": str(study._model.resolve()), "SPEED": "0.0", "GOOD": "1"}
    assert (study.out / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "BEST  trial" in capsys.readouterr().out
    assert (study.out / "trials.txt").read_text().splitlines()[1].split()[4] == "yes"  # the best one on top


@pytest.mark.parametrize(
    ("fault", "limits", "reason"),
    [
        ("exit", (), "the service ended with 1: cannot start: FAULT is exit"),
        ("unready", ("--ready-timeout", 3), "did not answer 200 within 3 s"),
        ("silent", ("--total-timeout", 3), "no question was answered"),
    ],
)
def test_a_trial_that_fails_or_hangs_is_recorded_with_its_reason(
    study: Study, fault: str, limits: tuple[object, ...], reason: str
) -> None:
    assert study.tune(f'[search]\nFAULT = ["{fault}"]\n', "--trials", 1, "--repeats", 1, *limits) == 1
    (trial,) = study.result["trials"]
    assert trial["state"] == "failed"
    assert reason in trial["error"]


def test_the_search_goes_on_after_a_trial_that_failed(study: Study) -> None:
    assert study.tune('[search]\nFAULT = ["exit", ""]\n[start]\nFAULT = "exit"\n', "--trials", 2, "--repeats", 1) == 0
    states = [(trial["settings"]["FAULT"], trial["state"]) for trial in study.result["trials"]]
    assert states == [("exit", "failed"), ("", "complete")]


def test_a_search_that_was_killed_goes_on_where_it_was(study: Study, tmp_path: Path) -> None:
    space = f'[fixed]\nSTARTED = "{tmp_path}/started"\n[search]\nSPEED = [0.5, 0.6, 0.7]\n'
    command = [sys.executable, "-m", "tools.tune", *study.arguments(space, "--trials", 4, "--repeats", 1)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(started(tmp_path)) >= 2)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started(tmp_path)))  # the services went along
    assert study.tune(space, "--trials", 4, "--repeats", 1) == 0
    trials = study.result["trials"]
    assert len(trials) == 4
    assert all(trial["state"] == "complete" for trial in trials)
    assert trials[0]["number"] == 0  # not measured again
    assert len(started(tmp_path)) == 5  # one of them was cut


def test_a_finished_search_only_reports_and_another_search_needs_another_folder(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = f'[fixed]\nSTARTED = "{tmp_path}/started"\n[search]\nGOOD = [1]\n'
    assert study.tune(space, "--trials", 1, "--repeats", 1) == 0
    assert study.tune(space, "--trials", 1, "--repeats", 1) == 0
    assert len(started(tmp_path)) == 1
    assert study.tune(space.replace("[1]", "[1, 0]"), "--trials", 1) == 2
    assert "holds a study with another space" in capsys.readouterr().err


def test_a_service_that_does_not_stop_is_ended_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "STOP_S", 0.5)
    monkeypatch.setattr(service, "STOP_AT_ONCE_S", 0.5)
    settings = {"FAULT": "stubborn", "CHILD": str(tmp_path / "child")}
    with service.running_service([sys.executable, str(LAUNCHER)], settings, tmp_path / "log", 60):
        child = int((tmp_path / "child").read_text())
    wait_for(lambda: not is_running(child))


def test_nothing_passes(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.tune("[search]\nGOOD = [0]\n", "--trials", 1) == 1
    assert not (study.out / "best.env").exists()
    assert study.result["trials"][0]["state"] == "complete"
    assert "NONE  no settings reach a score of 0.9" in capsys.readouterr().out


def test_the_webhook_is_told_and_never_shown(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/s3cret"
        assert study.tune("[search]\nGOOD = [1]\n", "--trials", 1, "--repeats", 1, "--webhook", address) == 0
    assert [(one["trials"], one["passed"]) for one in told] == [(1, True)]
    assert study.tune("[search]\nGOOD = [1]\n", "--trials", 1, "--repeats", 1, "--webhook", address) == 0
    shown = capsys.readouterr()
    assert "the webhook could not be told: ConnectError" in shown.err
    assert "s3cret" not in shown.err + shown.out


def test_a_space_in_json_and_in_toml(tmp_path: Path) -> None:
    toml, js = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text("[search]\nA = [1, 2]\nB = {low = 1, high = 9, step = 2}\nC = {low = 0.5, high = 1.5}\n")
    js.write_text('{"search": {"A": [1, 2], "B": {"low": 1, "high": 9, "step": 2}, "C": {"low": 0.5, "high": 1.5}}}')
    assert read_space(toml) == read_space(js)
    assert read_space(toml).search == {"A": Choice((1, 2)), "B": Range(1, 9, 2), "C": Range(0.5, 1.5)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[search\n", "a.toml"),
        ("[fixed]\nA = 1\n", r"\[search\] is empty"),
        ("[search]\nA = []\n", "A = "),
        ("[search]\nA = {low = 2, high = 1}\n", "A = "),
        ("[search]\nA = {low = 0, high = 1, log = true}\n", "A = "),
        ("[search]\nA = 5\n", "A = 5"),
        ("[search]\na = [1]\n", "a cannot be set by a trial"),
        ("[search]\nGATEWAY_PORT = [1]\n", "GATEWAY_PORT cannot be set"),
        ("[fixed]\nA = 1\n[search]\nA = [1]\n", r"\['A'\] must be in \[search\] alone"),
        ("[search]\nA = [1]\n[start]\nB = 1\n", r"\['B'\] must be in"),
        ("[other]\nA = 1\n", "other"),
        ('[fixed]\nA = "x\\ny"\n[search]\nB = [1]\n', "text of one line"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_space(tmp_path / "a.toml")


@pytest.mark.parametrize(
    "value", [True, False, 1, 0, "1", "True", " YES ", "on", "y", "0", "False", "NO", " off", "n", "", " "]
)
def test_a_switch_is_read_as_the_gateway_does(value: Value) -> None:
    text = {True: "1", False: "0"}[value] if isinstance(value, bool) else str(value)
    for default in (True, False):
        seen = Environment({"BATCH_MODE": text}).flag("BATCH_MODE", default)
        assert is_on({"BATCH_MODE": value}, "BATCH_MODE", default) is seen
        assert is_on({}, "BATCH_MODE", default) is default


@pytest.mark.parametrize("value", ["maybe", 2, 1.0])
def test_a_switch_that_the_gateway_would_refuse_ends_the_search(study: Study, value: Value) -> None:
    with pytest.raises(SettingsError):
        Environment({"BATCH_MODE": str(value)}).flag("BATCH_MODE", True)
    space = f"[fixed]\nBATCH_MODE = {json.dumps(value)}\n[search]\nGOOD = [1]\n"
    assert study.tune(space, "--trials", 1) == 2
    assert not study.out.exists()


def test_the_pareto_front_is_what_nothing_beats_in_both() -> None:
    figures = [(100.0, 0.5), (90.0, 0.9), (90.0, 0.8), (50.0, 0.9), (40.0, 1.0)]
    rows = [report.Row(n, "complete", {}, speed, score, True, "") for n, (speed, score) in enumerate(figures)]
    assert [one.number for one in report.pareto(rows)] == [0, 1, 4]


def test_an_env_file_that_serve_and_docker_read_alike() -> None:
    settings = {"A": '{"x": "y z"}', "B": True, "C": 1.5}
    assert parse(report.env_text(settings, "note"), "x") == {"A": '{"x": "y z"}', "B": "1", "C": "1.5"}
    with pytest.raises(UsageError, match="cannot be written"):
        report.env_text({"A": '"quoted"'}, "note")


def started(folder: Path) -> list[int]:
    file = folder / "started"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_for(condition: Any, timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
