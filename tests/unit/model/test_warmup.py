"""The warm-up: which questions it takes from a file, that a broken file stops nothing, and when it ends."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from llm_model.engines.base import EngineStatus, GenerationRequest, Sample
from llm_model.engines.pool import EnginePool
from llm_model.errors import EngineUnavailable, GenerationFailed, StartupError
from llm_model.generation import Generator
from llm_model.settings import ModelSettings
from llm_model.tokenization import Tokenization
from llm_model.warmup import read_questions, warm_up
from tests.unit.model.fake_engines import ScriptedEngine, echo, for_ever, raising


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="llm.model")
    return caplog


def write(folder: Path, *lines: Any) -> str:
    """Write a JSONL file; texts are lines as they are."""
    file = folder / "data.jsonl"
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return str(file)


async def warm(engine: ScriptedEngine, tokenization: Tokenization, **environ: str) -> None:
    await warm_pool(EnginePool([engine]), tokenization, **environ)


async def warm_pool(pool: EnginePool, tokenization: Tokenization, **environ: str) -> None:
    settings = ModelSettings.from_env({"SYSTEM_PROMPT": "Be brief.", **environ})
    await warm_up(Generator(pool, tokenization, 64), settings)


# The file


def test_the_shapes_of_a_line(tmp_path: Path) -> None:
    chat = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a"},
    ]
    path = write(
        tmp_path,
        {"messages": chat},
        {"messages": [*chat, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "q3", "reference_answer": "x"},
        {"instruction": "q4"},
        {"question": "q5"},
        "",
        {"messages": [], "prompt": "q6"},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}], "question": "q7"},
    )
    assert read_questions(path, 100) == ["q1", "q2", "q3", "q4", "q5", "q6", "q7"]


def test_the_first_questions_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path, *({"prompt": f"q{number}"} for number in range(10)), "broken line beyond the limit")
    assert read_questions(path, 3) == ["q0", "q1", "q2"]
    assert read_questions(path, 0) == []
    assert read_questions(None, 3) == []


ODD = [1, None, "text", [], {"answer": "a"}, {"prompt": " "}, {"prompt": 5}]
ODD += [{"messages": 5}, {"messages": {}}, {"messages": ["x"]}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_line_without_a_question_is_passed_over(tmp_path: Path, odd: Any) -> None:
    assert read_questions(write(tmp_path, json.dumps(odd), {"prompt": "q"}), 10) == ["q"]


@pytest.mark.parametrize("line", ["{", "not json", "[" * 100_000])
def test_a_broken_line_is_named_and_the_file_skipped(tmp_path: Path, log: pytest.LogCaptureFixture, line: str) -> None:
    path = write(tmp_path, {"prompt": "q"}, line)
    assert read_questions(path, 10) == []
    assert f"WARMUP_DATA_PATH={path} is skipped: line 2 is not valid JSON" in log.text


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path, binary):
        assert read_questions(str(path), 10) == []
        assert f"WARMUP_DATA_PATH={path} is skipped: " in log.text


def test_a_file_without_questions_is_named(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, {"answer": "a"})
    assert read_questions(path, 10) == []
    assert f"WARMUP_DATA_PATH={path} is skipped: it holds no question" in log.text


# The generations


async def test_the_files_questions_are_asked_with_the_system_prompt(
    tmp_path: Path, tokenization: Tokenization, log: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine()
    path = write(tmp_path, {"prompt": "q1"}, {"prompt": "q2"}, {"prompt": "q3"})
    await warm(engine, tokenization, WARMUP_DATA_PATH=path, WARMUP_NUM_SAMPLES="2")
    asked = tokenization.decode([request.token_ids for request in engine.requests], skip_special_tokens=True)
    assert asked == [f"system\nBe brief.\nuser\n{question}\nassistant\n" for question in ("1 + 1 = ?", "q1", "q2")]
    assert {(request.params.max_tokens, request.params.temperature) for request in engine.requests} == {(8, 0.0)}
    assert "warm-up: 3 questions in " in log.text


@pytest.mark.parametrize("repeat, times", [("0", 1), ("1", 1), ("3", 3)])
async def test_the_questions_are_repeated(tokenization: Tokenization, repeat: str, times: int) -> None:
    engine = ScriptedEngine()
    await warm(engine, tokenization, WARMUP_REPEAT=repeat)
    assert len(engine.requests) == times


@pytest.mark.parametrize("questions", [0, 1, 64])
async def test_every_engine_is_warmed(tmp_path: Path, tokenization: Tokenization, questions: int) -> None:
    """However few questions there are, and though an engine is filled before the next one gets any."""

    class OnGpu(ScriptedEngine):
        def status(self) -> EngineStatus:
            return dataclasses.replace(super().status(), gpu="0")

    engines = [OnGpu(name) for name in "abcd"]
    path = write(tmp_path, *({"prompt": f"q{number}"} for number in range(questions)))
    pool = EnginePool(engines, side_by_side=4)
    await pool.start()
    await warm_pool(pool, tokenization, WARMUP_DATA_PATH=path)
    assert all(engine.requests for engine in engines)
    assert sum(len(engine.requests) for engine in engines) == 4 + questions


async def test_a_broken_file_leaves_a_plain_warm_up(
    tmp_path: Path, tokenization: Tokenization, log: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine()
    await warm(engine, tokenization, WARMUP_DATA_PATH=str(tmp_path / "missing"))
    assert len(engine.requests) == 1
    assert "is skipped" in log.text


async def test_the_warm_up_ends_in_time_and_leaves_nothing_running(
    tokenization: Tokenization, log: pytest.LogCaptureFixture
) -> None:
    engine = ScriptedEngine(answer=for_ever)
    await warm(engine, tokenization, WARMUP_MAX_S="0.05")
    assert "warm-up: cut after 0 s (WARMUP_MAX_S)" in log.text
    assert (len(engine.requests), engine.running) == (1, 0)


async def test_questions_that_do_not_fit_are_no_obstacle(tmp_path: Path, tokenization: Tokenization) -> None:
    engine = ScriptedEngine()
    await warm(engine, tokenization, WARMUP_DATA_PATH=write(tmp_path, {"prompt": "x" * 999}))
    assert len(engine.requests) == 1


@pytest.mark.parametrize("error", [GenerationFailed("bad weights"), EngineUnavailable("it died")])
async def test_a_model_that_answers_nothing_stops_the_start(tokenization: Tokenization, error: Exception) -> None:
    with pytest.raises(StartupError) as caught:
        await warm(ScriptedEngine(answer=raising(error)), tokenization)
    assert str(caught.value) == f"the model answers no question of the warm-up: {error}"


async def test_a_model_that_answers_some_questions_starts(tmp_path: Path, tokenization: Tokenization) -> None:
    async def fail_once(request: GenerationRequest) -> list[Sample]:
        engine.answer = echo
        raise GenerationFailed("first one")

    engine = ScriptedEngine(answer=fail_once)
    await warm(engine, tokenization, WARMUP_DATA_PATH=write(tmp_path, {"prompt": "a"}, {"prompt": "b"}))
    assert len(engine.requests) == 1 + 3, "the plain question once more"
