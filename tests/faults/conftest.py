"""Services to be harmed. Each start costs time, so a service is shared where the fault leaves it whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Stacks, bundled_model, default_model, stacks  # noqa: F401 - fixtures
from tests.e2e.stack import Stack

# A hang is noticed soon enough for a test, and a model may be killed as often as the tests like.
IMPATIENT = {"WATCHDOG_PROBE_S": "3", "WATCHDOG_STALL_S": "8", "TRITON_MAX_RESTARTS": "100"}


@pytest.fixture
def vllm_stack(stacks: Stacks, default_model: Path) -> Stack:  # noqa: F811
    """vLLM with whatever model there is."""
    return stacks.get("faults-vllm", {"MODEL_DIR": str(default_model), "TRITON_MAX_RESTARTS": "100"})


@pytest.fixture
def echo_stack(stacks: Stacks, default_model: Path) -> Stack:  # noqa: F811
    """No weights: for faults of all but the engines."""
    return stacks.get("faults-echo", {"MODEL_DIR": str(default_model), "USE_VLLM": "echo", **IMPATIENT})
