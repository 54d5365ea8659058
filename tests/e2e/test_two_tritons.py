"""Several Tritons behind one gateway: both work, and one that is killed under load costs no request."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import Ports, Stack, descendants

pytestmark = pytest.mark.timeout(400)

CLIENTS = 8
QUESTIONS = [f"What is the square of {number}?" for number in range(20)]
HANGING_S = 0.5  # an echoed answer takes some milliseconds


@dataclass
class Pair:
    """A service whose gateway asks its own Triton and the one of another service."""

    front: Stack
    own_grpc: int
    other: Stack

    def up(self) -> dict[str, float]:
        """What the gateway thinks of each Triton, by port."""
        text = httpx.get(f"{self.front.url}/metrics", timeout=30).text
        return {port: float(value) for port, value in re.findall(r'upstream_up\{upstream=".*?:(\d+)"\} (\S+)', text)}

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.front.url}/metrics", timeout=30).text
        (value,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(value)

    def served_by_other(self) -> float:
        """Requests that the other service's Triton has answered; its own gateway only probes."""
        text = self.other.triton_metrics()
        (value,) = re.findall(r'^nv_inference_request_success\{model="llm".*\} (\S+)$', text, re.MULTILINE)
        return float(value)


@dataclass
class Load:
    """Clients that ask batches until they are told to stop."""

    url: str
    statuses: list[int] = field(default_factory=list)
    answers: set[tuple[str, ...]] = field(default_factory=set)
    stopping: threading.Event = field(default_factory=threading.Event)
    _asked_at: dict[int, float] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def hanging(self) -> bool:
        """Whether a request is without an answer for much longer than one takes."""
        now = time.monotonic()
        return any(now - asked > HANGING_S for asked in tuple(self._asked_at.values()))

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=300) as client:
            while not self.stopping.is_set():
                self._asked_at[number] = time.monotonic()
                reply = client.post(f"{self.url}/predict", json={"prompt": QUESTIONS})
                self.statuses.append(reply.status_code)
                if reply.status_code == 200:
                    self.answers.add(tuple(reply.json()["response"]))
                    assert "errors" not in reply.json()
            self._asked_at.pop(number)


@pytest.fixture(scope="module")
def pair(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    logs = tmp_path_factory.mktemp("two-tritons")
    settings = {"MODEL_DIR": str(default_model), "USE_VLLM": "echo"}
    other = Stack.start(settings, logs / "other.log")
    try:
        own = Ports.free().grpc
        urls = f"127.0.0.1:{own},{other.grpc_address}"
        front = Stack.start({**settings, "TRITON_GRPC_PORT": str(own), "TRITON_URL": urls}, logs / "front.log")
        try:
            yield Pair(front, own, other)
        finally:
            assert front.stop() == 0
    finally:
        assert other.stop() == 0


def test_both_get_a_share_of_a_batch(pair: Pair) -> None:
    pair.front.wait_for(lambda: set(pair.up().values()) == {1.0}, 60, "connected to both")
    assert pair.up().keys() == {str(pair.own_grpc), str(pair.other.ports.grpc)}
    before = pair.served_by_other()
    answers = pair.front.predict(QUESTIONS * 50)
    assert answers[: len(QUESTIONS)] == answers[-len(QUESTIONS) :]
    pair.front.wait_for(lambda: pair.served_by_other() > before, 30, "seen asking the other Triton")


def test_one_that_is_killed_costs_no_request(pair: Pair) -> None:
    pair.front.wait_for(lambda: set(pair.up().values()) == {1.0}, 60, "connected to both")
    expected = tuple(pair.front.predict(QUESTIONS))
    retries = pair.metric("gateway_retries_total")
    other = [pid for pid in descendants(pair.other.process.pid) if _program(pid) == "tritonserver"]
    assert len(other) == 1
    with Load(pair.front.url) as load:
        pair.front.wait_for(lambda: len(load.statuses) >= 20, 60, "loaded")
        os.kill(other[0], signal.SIGSTOP)  # so that it surely has requests in hand when it dies
        pair.front.wait_for(load.hanging, 60, "waiting for the stopped Triton")
        os.kill(other[0], signal.SIGKILL)
        before = len(load.statuses)
        pair.front.wait_for(lambda: len(load.statuses) >= before + 100, 120, "answering with the one that is left")
    assert set(load.statuses) == {200}
    assert load.answers == {expected}
    assert pair.metric("gateway_retries_total") > retries
    # Its supervisord starts it again, and the gateway takes it back.
    pair.front.wait_for(lambda: pair.up()[str(pair.other.ports.grpc)] == 1.0, 120, "connected to the restarted Triton")


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
