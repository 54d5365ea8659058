"""The wall clock jumps an hour forth and back while requests run: nothing times out (F11).

Only the gateway sees the jumps. It is where all time-outs of requests are; Triton 2.51 itself does not bear a clock
that goes back, and with libfaketime what sleeps fails, as the other processes do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.e2e.stack import Ports, Stack
from tests.e2e.triton_client import requests_in_engines
from tests.faults.burst import Burst, stream_events

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOUR_S = 3600
JUMPS_S = (HOUR_S, 0, -HOUR_S, HOUR_S)
LONG = {"max_new_tokens": 1200, "ignore_eos": True, "system_prompt": "s"}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not LIBRARY.is_file(), reason="needs Debian's package libfaketime"),
]


@dataclass
class FakedGateway:
    """A second gateway on the stack's Triton, which reads the wall clock through libfaketime."""

    url: str
    _offset: Path

    def move_clock(self, seconds: int) -> None:
        """Set the wall clock to so many seconds after the true time."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._offset)

    def clock_error_s(self) -> float:
        """How far its clock is from the true one, by the date of an answer."""
        body = {"model": "any", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
        model = httpx.get(f"{self.url}/v1/models").json()["data"][0]["id"]
        reply = httpx.post(f"{self.url}/v1/chat/completions", json={**body, "model": model}, timeout=60)
        assert reply.status_code == 200, reply.text
        return float(reply.json()["created"]) - time.time()


@pytest.fixture
def gateway(vllm_stack: Stack, tmp_path: Path) -> Iterator[FakedGateway]:
    port, offset = Ports.free().gateway, tmp_path / "offset"
    faked = FakedGateway(f"http://127.0.0.1:{port}", offset)
    faked.move_clock(0)
    clock = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    settings = {"GATEWAY_PORT": str(port), "TRITON_URL": vllm_stack.grpc_address, "REQUEST_TIMEOUT_S": "120"}
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **settings, **clock}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "gateway"], cwd=ROOT, env=environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(faked.url):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield faked
    finally:
        process.terminate()
        assert process.wait(60) == 0


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_no_time_out_fires_when_the_clock_jumps(vllm_stack: Stack, gateway: FakedGateway) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    with ThreadPoolExecutor(1) as reader:
        burst = Burst(gateway.url, [{"prompt": f"{n}?", **LONG} for n in range(40)])
        streaming = reader.submit(stream_events, gateway.url, {"prompt": "0?", **LONG}, events)
        vllm_stack.wait_for(lambda: requests_in_engines(vllm_stack.grpc_address) > 40 and bool(events), 60, "working")
        for jump in JUMPS_S:
            gateway.move_clock(jump)
            assert gateway.clock_error_s() == pytest.approx(jump, abs=5), "the jump is seen"
            assert answers(gateway.url)
            assert not streaming.done(), "all jumps are to happen while requests run"
        replies = burst.replies()
        streaming.result(120)
    assert [reply.status for reply in replies] == [200] * 40
    assert all(reply.body["response"] for reply in replies)
    assert {name for name, _ in events} == {"message"}
    assert events[-1][1]["finish_reason"] == "length"
