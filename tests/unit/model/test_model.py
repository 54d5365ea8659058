"""Triton's three calls: initialize, execute, finalize."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import triton_python_backend_utils as pb_utils

from llm_model.logs import JsonFormatter, configure, logger
from llm_model.model import TritonPythonModel
from tests.unit.model.running import request, rows_of, texts_of

ARGUMENTS = {"model_name": "llm", "model_version": "1"}  # those of Triton's that are used


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The model takes over its logger; give it back."""
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def settings(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MODEL_DIR", str(model_folder))
    monkeypatch.setenv("USE_VLLM", "echo")
    monkeypatch.setenv("SYSTEM_PROMPT", "Be brief.")
    return monkeypatch


def test_the_life_of_a_model(settings: pytest.MonkeyPatch) -> None:
    threads = threading.active_count()
    model = TritonPythonModel()
    model.initialize(ARGUMENTS)
    asked = [request([text], exclude=True) for text in ("a", "b", "c")]
    model.execute(asked)
    assert [texts_of(one.sender.wait_closed()) for one in asked] == [["a"], ["b"], ["c"]]
    model.finalize()
    assert threading.active_count() == threads


def test_a_bad_request_does_not_keep_its_neighbours_from_their_answers(settings: pytest.MonkeyPatch) -> None:
    model = TritonPythonModel()
    model.initialize(ARGUMENTS)
    asked = [request(), request(["a"], "partial", exclude=True)]
    model.execute(asked)
    (refusal,) = asked[0].sender.wait_closed()
    assert refusal.has_error()
    assert rows_of(asked[1].sender.wait_closed()) == {0: [b"a"]}
    model.finalize()


@pytest.mark.parametrize(
    "name, value, cause",
    [
        ("MAX_MODEL_LEN", "many", "MAX_MODEL_LEN=many: a whole number from 2 to 2147483647"),
        ("MODEL_DIR", "/nowhere", "/nowhere/config.json cannot be read: No such file or directory"),
        ("SYSTEM_PROMPT", "x" * 999, "the model answers no question of the warm-up: INVALID_ARG: the prompt has "),
    ],
)
def test_a_model_that_cannot_be_served_names_the_cause(
    settings: pytest.MonkeyPatch, name: str, value: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.setenv(name, value)
    with pytest.raises(pb_utils.TritonModelException, match=r"^the model cannot be served: ") as caught:
        TritonPythonModel().initialize(ARGUMENTS)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_of_the_json_log() -> None:
    record = logging.LogRecord("llm.model", logging.WARNING, __file__, 1, "线程 %s\nx", ("y",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("WARNING", "llm.model", "线程 y\nx")
    assert isinstance(entry["time"], float)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_goes_to_standard_output_once(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    for _ in range(2):
        configure("INFO", log_format)
    logger.debug("unseen")
    try:
        raise ValueError("the cause")
    except ValueError:
        logger.exception("it happened")
    out, err = capsys.readouterr()
    assert (out.count("it happened"), out.count("unseen"), err) == (1, 0, "")
    assert "the cause" in out
    assert log_format == "text" or json.loads(out)["exception"].endswith("ValueError: the cause")
