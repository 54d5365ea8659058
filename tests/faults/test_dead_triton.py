"""Triton's processes die under load (F3), and the service is stopped by two signals under load (F6). With vLLM."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import Stacks
from tests.e2e.stack import Stack, is_running
from tests.e2e.triton_client import requests_in_engines
from tests.faults.burst import Burst, stream_events
from tests.faults.victims import GATEWAY, STUB, TRITON, TritonTree, descriptors, one

pytestmark = pytest.mark.timeout(300)

LONG = {"max_new_tokens": 400, "ignore_eos": True, "system_prompt": "s"}
BODIES: list[dict[str, Any]] = [{"prompt": f"{n}?", **LONG} for n in range(200)]


@pytest.mark.parametrize("victim", [STUB, TRITON])
def test_what_was_in_flight_is_answered_by_the_next_triton(vllm_stack: Stack, victim: str) -> None:
    old, open_files = TritonTree.of(vllm_stack), descriptors(one(vllm_stack, GATEWAY))
    events: list[tuple[str, dict[str, Any]]] = []
    with ThreadPoolExecutor(1) as reader:
        burst = Burst(vllm_stack.url, BODIES)
        vllm_stack.wait_for(lambda: requests_in_engines(vllm_stack.grpc_address) > 100, 60, "working")
        endless = {"prompt": "0?", **LONG, "max_new_tokens": 1900}
        streaming = reader.submit(stream_events, vllm_stack.url, endless, events)
        vllm_stack.wait_for(lambda: bool(events), 60, "streaming")
        os.kill(one(vllm_stack, victim), signal.SIGKILL)
        killed = time.monotonic()
        vllm_stack.wait_for(lambda: not vllm_stack.is_ready(), 10, "seen to be unready")
        vllm_stack.wait_ready()
        replies = burst.replies()
        streaming.result(60)
    print(f"all answered {time.monotonic() - killed:.1f} s after the kill")
    assert {reply.status for reply in replies} == {200}
    assert all(reply.body["response"] for reply in replies)
    assert events[-1][0] == "error", "a stream cannot be taken up again"
    assert set(events[-1][1]["error"]) == {"type", "message", "request_id"}
    assert old.left() == []
    assert old.memory_left() == []
    gateway = one(vllm_stack, GATEWAY)
    vllm_stack.wait_for(lambda: descriptors(gateway) <= open_files + 5, 30, "back to its open files")


def test_a_second_sigterm_ends_at_once_with_errors_to_the_clients(vllm_stack: Stack, stacks: Stacks) -> None:
    stacks.forget()  # it ends here, and not with 0
    tree = TritonTree.of(vllm_stack)
    burst = Burst(vllm_stack.url, BODIES)
    vllm_stack.wait_for(lambda: requests_in_engines(vllm_stack.grpc_address) > 100, 60, "working")
    vllm_stack.process.send_signal(signal.SIGTERM)
    vllm_stack.wait_for(lambda: "draining: new requests are refused" in vllm_stack.text(), 20, "draining")
    vllm_stack.process.send_signal(signal.SIGTERM)
    try:
        assert vllm_stack.process.wait(15) == 128 + signal.SIGTERM
    finally:
        left = [pid for pid in {*vllm_stack.pids, *tree.pids} if is_running(pid)]
        vllm_stack.stop()
    assert left == []
    assert tree.memory_left() == []
    replies = burst.replies()
    assert all(reply.is_documented for reply in replies), [reply for reply in replies if not reply.is_documented]
    assert any(reply.status == 503 for reply in replies)
