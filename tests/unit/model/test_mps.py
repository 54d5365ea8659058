"""NVIDIA's MPS for engines that share a GPU: only where a daemon is offered and a CUDA program gets through it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from llm_model.engines import selection
from llm_model.engines.gpus import Gpu
from llm_model.engines.mps import OFFER, PIPES, cuda_problem, mps_environ, mps_works
from llm_model.engines.plan import Facts, make_plan
from llm_model.settings import ModelSettings

GIB = 1 << 30


@pytest.fixture
def pipes(tmp_path: Path) -> Path:
    """A daemon's folder."""
    (tmp_path / "control").touch()
    return tmp_path


def facts(weights: int, **environ: str) -> Facts:
    return Facts("gpu", [Gpu("0", 80 * GIB), Gpu("1", 80 * GIB)], weights, (0, 25), range(16), environ)


def settings(**environ: str) -> ModelSettings:
    return ModelSettings.from_env({"MODEL_DIR": "/m", **environ})


def test_engines_that_share_a_gpu_go_through_the_daemon() -> None:
    plan = make_plan(settings(), facts(GIB, **{OFFER: "/pipes"}))
    assert len(plan.engines) == 8
    assert {engine.environ[PIPES] for engine in plan.engines} == {"/pipes"}


def test_one_engine_on_a_gpu_does_not() -> None:
    plan = make_plan(settings(), facts(16 * GIB, **{OFFER: "/pipes"}))
    assert len(plan.engines) == 2
    assert not [engine for engine in plan.engines if PIPES in engine.environ]


def test_without_an_offer_nothing_is_said() -> None:
    assert mps_environ({}) == mps_environ({OFFER: ""}) == {}
    assert PIPES not in make_plan(settings(), facts(GIB)).engines[0].environ


def test_a_program_that_gets_through_is_the_proof(pipes: Path) -> None:
    asked = []
    assert mps_works({PIPES: str(pipes)}, lambda environ: asked.append(environ))  # type: ignore[func-returns-value]
    assert asked == [{PIPES: str(pipes)}]


def test_without_a_daemon_a_program_would_prove_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not mps_works({PIPES: str(tmp_path)}, lambda environ: pytest.fail("asked"), wait_s=0.1)
    assert f"NVIDIA's MPS cannot be used: {tmp_path} has no daemon's pipe" in caplog.text


def test_what_stops_the_program_is_told(pipes: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not mps_works({PIPES: str(pipes)}, lambda environ: cuda_problem(environ, "import sys; sys.exit(5)"))
    assert "the engines of a GPU compute in turns" in caplog.text
    assert "a CUDA program ended with status 5" in caplog.text


def test_the_program_gets_the_environment() -> None:
    program = "import os, sys; sys.exit(os.environ['CUDA_MPS_PIPE_DIRECTORY'] != '/pipes')"
    assert cuda_problem({PIPES: "/pipes"}, program) is None
    assert "ended with status 1" in str(cuda_problem({PIPES: "/others"}, program))


@pytest.mark.parametrize("works", [True, False])
def test_where_it_does_not_work_the_engines_start_without_it(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(selection, "mps_works", lambda environ: asked.append(environ) or works)
    plan = selection.working_plan(settings(), facts(GIB, **{OFFER: "/pipes"}))
    assert [PIPES in engine.environ for engine in plan.engines] == [works] * 8
    assert [environ["CUDA_VISIBLE_DEVICES"] for environ in asked] == ["0"]
    selection.working_plan(settings(), facts(16 * GIB, **{OFFER: "/pipes"}))
    assert len(asked) == 1


def test_a_machine_without_the_driver_is_told_in_one_line() -> None:
    problem = cuda_problem({}, "import ctypes; ctypes.CDLL('libno-such-driver.so.1')")
    assert problem is not None
    assert "libno-such-driver.so.1" in problem
    assert "\n" not in problem
