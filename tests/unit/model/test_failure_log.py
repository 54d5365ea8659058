"""Why an engine did not start: vLLM's log has a second place for its errors, which is read back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from llm_model.engines.failure_log import FailureLog, cause, configure_logging, fitting_length

# As vLLM 0.10 to 0.32 log it, but for the traceback's length.
TRACEBACK = """ERROR 11-26 EngineCore failed to start.
Traceback (most recent call last):
  File "vllm/v1/core/kv_cache_utils.py", line 1030, in _check_enough_kv_cache_memory
    raise ValueError(
ValueError: To serve at least one request with the model's max seq len (4096), (1.91 GiB KV cache is needed, which is \
larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated maximum model length \
is 2144. Try increasing `gpu_memory_utilization`.
"""


def test_the_cause_is_the_logs_last_error() -> None:
    found = cause(RuntimeError("Engine core initialization failed. See root cause above."), TRACEBACK)
    assert found.startswith("To serve at least one request")


def test_without_a_log_the_cause_is_the_innermost_error() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("inner\nsecond line")
    assert cause(outer, "") == "inner"
    assert cause(KeyError(), "") == "KeyError"


class Options(BaseModel):
    """As vLLM's configuration: fields, and a check of all together."""

    length: int = 1
    kind: Literal["a", "b"] = "a"

    @model_validator(mode="after")
    def _fits(self) -> Options:
        if self.length > 10:
            raise ValueError(f"length {self.length} is greater than 10\nmore")
        return self


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"kind": "c"}, "kind: Input should be 'a' or 'b'"),
        ({"length": 11}, "Value error, length 11 is greater than 10"),
    ],
)
def test_of_what_pydantic_finds_the_first_is_told(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Options(**fields)
    assert cause(caught.value, "") == told


@pytest.mark.parametrize("log, length", [(TRACEBACK, 2144), ("ValueError: something else", None), ("", None)])
def test_the_length_that_fits_is_the_one_that_vllm_names(log: str, length: int | None) -> None:
    assert fitting_length(log) == length


def test_errors_of_a_child_process_are_read_back() -> None:
    environ: dict[str, str] = {}
    configure_logging("WARNING", environ)
    log = FailureLog.of(environ)
    run_child(environ, "before")
    log.mark()
    assert log.text() == ""
    printed = run_child(environ, "after")
    assert "after" in printed  # on the console as well
    assert "after" in log.text()
    assert "before" not in log.text()
    assert "only a warning" in printed
    assert "only a warning" not in log.text()


def run_child(environ: dict[str, str], message: str) -> str:
    """What vLLM does in each of its processes."""
    program = (
        "import json, logging, logging.config, sys\n"
        "logging.config.dictConfig(json.load(open(sys.argv[1])))\n"
        "log = logging.getLogger('vllm.engine'); log.warning('only a warning'); log.error(sys.argv[2])"
    )
    command = [sys.executable, "-c", program, environ["VLLM_LOGGING_CONFIG_PATH"], message]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("own", [{"VLLM_LOGGING_CONFIG_PATH": "/my/logging.json"}, {"VLLM_CONFIGURE_LOGGING": "0"}])
def test_an_operators_own_logging_stays(own: dict[str, str]) -> None:
    environ = dict(own)
    configure_logging("WARNING", environ)
    assert environ == own
    log = FailureLog.of(environ)
    log.mark()
    assert log.text() == ""


def test_a_foreign_logging_file_is_no_failure_log(tmp_path: Path) -> None:
    file = tmp_path / "logging.json"
    file.write_text(json.dumps({"version": 1, "handlers": {"console": {}}}), encoding="utf-8")
    assert FailureLog.of({"VLLM_LOGGING_CONFIG_PATH": str(file)}).text() == ""
