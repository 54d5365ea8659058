"""NVIDIA's MPS daemon: started where it can be had, checked where it is asked for, used by the engines of this run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_model.engines.mps import OFFER, PIPES
from runtime.errors import BadSetting, StartError
from runtime.fatal_listener import RUN_DIR_VARIABLE
from runtime.interpreter import Interpreter
from runtime.mps_command import PROGRAM, mps_problem, mps_starts, mps_variables, run_mps
from runtime.preflight import preflight
from runtime.settings import PROJECT_ROOT, RuntimeSettings
from runtime.triton_command import triton_environment
from runtime.triton_runtime import TritonRuntime
from tests.fakes.programs import write_program
from tests.waiting import wait_until

FAKE = PROJECT_ROOT / "tests/fakes/mps_control.py"
ON = RuntimeSettings.from_env({"NVIDIA_MPS": "1"})
AUTO = RuntimeSettings.from_env({})


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the fake daemon in it."""
    write_program(tmp_path / "bin" / PROGRAM, f"#!{sys.executable}\n{FAKE.read_text()}")
    return str(tmp_path / "bin")


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A device folder with one of NVIDIA's GPUs, which need not be the machine's first."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia3").touch()
    return tmp_path / "dev"


def become_daemon(run_dir: Path, **environ: str) -> subprocess.Popen[str]:
    """The command as supervisord runs it."""
    command = [sys.executable, "-m", "runtime", "mps"]
    environ = {RUN_DIR_VARIABLE: str(run_dir), **environ}
    return subprocess.Popen(command, cwd=PROJECT_ROOT, env=environ, stdout=subprocess.PIPE, text=True)


@contextmanager
def daemon(run_dir: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The daemon, once it is there."""
    with become_daemon(run_dir, LOG_LEVEL="debug", **environ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"mps {process.pid}\n"
            yield process
        finally:
            process.terminate()


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def test_it_can_be_demanded_and_forbidden(path: str, dev: Path, tmp_path: Path) -> None:
    assert not mps_starts(RuntimeSettings.from_env({"NVIDIA_MPS": "0"}), {"PATH": path}, dev, tmp_path)
    assert mps_starts(ON, {})
    with pytest.raises(BadSetting, match="NVIDIA_MPS=perhaps: 0, 1 or auto"):
        RuntimeSettings.from_env({"NVIDIA_MPS": "perhaps"})


def test_auto_starts_it_where_it_can_be_had(path: str, dev: Path, tmp_path: Path) -> None:
    assert mps_starts(AUTO, {"PATH": path}, dev, tmp_path)
    assert not mps_starts(AUTO, {"PATH": path}, tmp_path / "bin", tmp_path), "no GPU"
    assert not mps_starts(AUTO, {"PATH": str(tmp_path)}, dev, tmp_path), "no daemon"
    assert not mps_starts(AUTO, {"PATH": path, "CUDA_MPS_PIPE_DIRECTORY": "/theirs"}, dev, tmp_path)
    (tmp_path / "control").touch()
    assert not mps_starts(AUTO, {"PATH": path}, dev, tmp_path), "somebody else's is there"
    _, problems = preflight({**os.environ, "NVIDIA_MPS": "auto", "PATH": str(tmp_path)})
    assert "mps" not in [one.check for one in problems]


def test_with_auto_the_model_decides_whose_steps_go_through_it(tmp_path: Path) -> None:
    told, offered = mps_variables(ON, tmp_path), mps_variables(AUTO, tmp_path)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in offered
    assert offered[OFFER] == told[PIPES]


def test_a_gpu_and_the_program_are_enough(path: str, dev: Path) -> None:
    assert mps_problem({"PATH": path, "CUDA_MPS_PIPE_DIRECTORY": " "}, dev) is None


def test_what_is_missing_is_named(path: str, dev: Path, tmp_path: Path) -> None:
    assert mps_problem({"PATH": path}, tmp_path) == (
        f"NVIDIA_MPS=1 needs an NVIDIA GPU, and {tmp_path} has none: set it to 0"
    )
    without = mps_problem({"PATH": str(tmp_path)}, dev)
    assert str(without).startswith(f"NVIDIA_MPS=1 needs {PROGRAM} on PATH: ")
    both = mps_problem({"PATH": str(tmp_path)}, tmp_path)
    assert str(both).count("NVIDIA_MPS=1 needs ") == 2
    assert "\n" not in str(both)


def test_a_daemon_of_the_operators_own_is_not_doubled(path: str, dev: Path) -> None:
    environ = {"PATH": path, "CUDA_MPS_PIPE_DIRECTORY": "/theirs"}
    assert str(mps_problem(environ, dev)).endswith(
        "CUDA_MPS_PIPE_DIRECTORY=/theirs names one: set NVIDIA_MPS to 0 to use that one"
    )
    _, problems = preflight({**os.environ, "NVIDIA_MPS": "1", "CUDA_MPS_PIPE_DIRECTORY": "/theirs"})
    assert [one.check for one in problems if "CUDA_MPS_PIPE_DIRECTORY=/theirs" in one.text] == ["mps"]
    _, problems = preflight({**os.environ, "CUDA_MPS_PIPE_DIRECTORY": "/theirs"})
    assert not [one for one in problems if one.check == "mps"]


def test_the_daemon_runs_in_the_foreground_in_folders_of_this_run(path: str, tmp_path: Path) -> None:
    with daemon(tmp_path, PATH=path) as process:
        told = environment_of(process.pid)
        assert {**told, **mps_variables(ON, tmp_path)} == told
        for folder in mps_variables(ON, tmp_path).values():
            assert (Path(folder) / f"{PROGRAM}.pid").read_text() == str(process.pid)
    assert process.returncode == -signal.SIGTERM


def test_what_it_says_is_kept_in_a_file_unless_all_is_wanted(path: str, tmp_path: Path) -> None:
    log = tmp_path / "mps-log/daemon.log"
    with become_daemon(tmp_path, PATH=path) as process:
        wait_until(lambda: log.is_file() and log.read_text() == f"mps {process.pid}\n", 20)
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_a_daemon_that_is_started_anew_finds_its_folders_there(path: str, tmp_path: Path) -> None:
    for _ in range(2):
        with daemon(tmp_path, PATH=path) as process:
            process.kill()


def test_it_knows_all_gpus_by_the_engines_numbers_and_no_secret(path: str, tmp_path: Path) -> None:
    with daemon(tmp_path, PATH=path, CUDA_VISIBLE_DEVICES="2,3", API_KEY="secret", LANG="C.UTF-8") as process:
        told = environment_of(process.pid)
    assert told["LANG"] == "C.UTF-8"
    assert not {"CUDA_VISIBLE_DEVICES", "API_KEY"} & set(told)


def test_a_program_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"{PROGRAM} is not on PATH"):
        run_mps({"PATH": str(tmp_path), RUN_DIR_VARIABLE: str(tmp_path)})


def test_triton_and_its_engines_are_told_where_the_daemon_is(tmp_path: Path) -> None:
    told = mps_variables(ON, tmp_path)
    assert told["CUDA_MPS_PIPE_DIRECTORY"] == str(tmp_path / "mps")
    runtime = TritonRuntime(Path("/t/bin/tritonserver"), Path("/t/backends"), (), False, "2.51.0")
    given = triton_environment({**told, "CUDA_VISIBLE_DEVICES": "2"}, ON, runtime, Interpreter.running())
    assert {**given, **told, "CUDA_VISIBLE_DEVICES": "2"} == given
