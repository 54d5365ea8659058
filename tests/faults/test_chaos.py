"""The chaos trial in short: each fault once, under load, with two engines (`make chaos` goes on for minutes)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import trial
from tests.chaos.__main__ import TWO_ENGINES, question
from tests.chaos.faults import FAULTS
from tests.chaos.load import Load
from tests.e2e.conftest import Stacks

pytestmark = pytest.mark.timeout(600)


def test_nothing_fails_that_may_not_and_nothing_leaks(default_model: Path, stacks: Stacks) -> None:
    stack = stacks.get("chaos", {"MODEL_DIR": str(default_model), **TWO_ENGINES})
    load = Load(stack.url, clients=6, seed=7, body=question, leaving=0.05)
    result = trial.run(stack, FAULTS, seed=7, rounds=1, load=load)
    table = trial.table(result)
    print(table)
    assert {done.name for done in result.done} == {fault.name for fault in FAULTS}
    assert result.outcomes["answered"] > 0
    assert result.unexcused == 0, table
    assert result.leaks == [], table
