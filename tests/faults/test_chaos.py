"""The chaos trial in short: faults under load, each once. `make chaos` goes on for minutes, and harms engines too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import trial
from tests.chaos.__main__ import question
from tests.chaos.faults import FAULTS
from tests.chaos.load import Load
from tests.e2e.conftest import Stacks

pytestmark = pytest.mark.timeout(600)

# transformers runs within the stub: there is no engine process to harm. test_engine_faults.py does that with vLLM.
WITHOUT_ENGINES = [fault for fault in FAULTS if "engine" not in fault.name]


def test_nothing_fails_that_may_not_and_nothing_leaks(default_model: Path, stacks: Stacks) -> None:
    settings = {"MODEL_DIR": str(default_model), "USE_VLLM": "false", "TRITON_MAX_RESTARTS": "100"}
    stack = stacks.get("chaos", settings)
    load = Load(stack.url, clients=4, seed=7, body=question, leaving=0.05)
    result = trial.run(stack, WITHOUT_ENGINES, seed=7, rounds=1, load=load)
    table = trial.table(result)
    print(table)
    assert {done.name for done in result.done} == {fault.name for fault in WITHOUT_ENGINES}
    assert result.outcomes["answered"] > 0
    assert result.unexcused == 0, table
    assert result.leaks == [], table
