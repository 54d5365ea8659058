"""A gateway that dies (F4), a hang (F5), and a Triton that no restart helps. With the echo backend."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, is_running
from tests.faults.conftest import IMPATIENT
from tests.faults.victims import GATEWAY, STUB, TRITON, WATCHDOG, TritonTree, found, one

pytestmark = pytest.mark.timeout(300)


def test_a_killed_gateway_is_back_soon_and_triton_keeps_its_process(echo_stack: Stack) -> None:
    tree, gateway = TritonTree.of(echo_stack), one(echo_stack, GATEWAY)
    os.kill(gateway, signal.SIGKILL)
    killed = time.monotonic()
    echo_stack.wait_for(lambda: not is_running(gateway), 5, "gone")
    echo_stack.wait_for(echo_stack.is_ready, 30, "ready")
    assert time.monotonic() - killed < 5 * slowness()
    assert echo_stack.predict("a")
    assert TritonTree.of(echo_stack).pids == tree.pids


@pytest.mark.parametrize("victim", [STUB, TRITON])
def test_a_stopped_process_is_a_hang_and_is_replaced(echo_stack: Stack, victim: str) -> None:
    tree = TritonTree.of(echo_stack)
    os.kill(one(echo_stack, victim), signal.SIGSTOP)
    echo_stack.wait_for(lambda: not echo_stack.is_ready(), 30, "seen to be unready")
    assert echo_stack.predict("asked while nobody answers")
    assert tree.left() == []
    assert tree.memory_left() == []


def test_a_watchdog_that_dies_comes_back_and_an_idle_service_is_left_alone(echo_stack: Stack) -> None:
    tree, watchdog = TritonTree.of(echo_stack), found(echo_stack, WATCHDOG)
    os.kill(watchdog[0], signal.SIGKILL)
    echo_stack.wait_for(lambda: found(echo_stack, WATCHDOG) not in ([], watchdog), 30, "back")
    assert echo_stack.predict("a")
    assert TritonTree.of(echo_stack).pids == tree.pids


def test_a_triton_that_dies_again_and_again_is_given_up_loudly(default_model: Path, tmp_path: Path) -> None:
    settings = {"MODEL_DIR": str(default_model), "USE_VLLM": "echo", **IMPATIENT, "TRITON_MAX_RESTARTS": "0"}
    stack = Stack.start(settings, tmp_path / "log")
    try:
        # An end within supervisord's `startsecs` is a failed start, which it counts itself.
        stack.wait_for(lambda: "triton entered RUNNING state" in stack.text(), 60, "running by supervisord's word")
        os.kill(one(stack, STUB), signal.SIGKILL)
        assert stack.process.wait(90) == 1
        assert "restarting Triton: the model's process is gone" in stack.text()
        assert "gave up: triton ended 1 times within 1800 s" in stack.text().splitlines()[-1]
    finally:
        stack.stop()


def slowness() -> float:
    """How much longer things take while others use the machine: at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
