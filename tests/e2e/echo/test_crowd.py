"""Two thousand clients at once, and a batch of ten thousand beside them, on a real Triton."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

CLIENTS, ROUNDS = 2000, 2
# The aim is 0.1 s. Here gateway, Triton, its stub and the two thousand clients share two cores with one another.
HEALTH_P99_S = 1.5


@contextmanager
def health_polled(port: int) -> Iterator[list[float]]:
    """The seconds that the health check took each time, in order of size, once the block has ended."""
    command = [sys.executable, str(Path(__file__).with_name("health_poller.py")), str(port)]
    waits: list[float] = []
    poller = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield waits
        told, _ = poller.communicate(timeout=60)
        assert poller.returncode == 0
        waits += sorted(json.loads(told))
    finally:
        poller.kill()
        poller.wait()


async def ask(port: int, number: int) -> list[int]:
    """Some questions on one connection; the statuses of the answers, each of which must be for its question."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses = []
    for turn in range(ROUNDS):
        question = f"client {number} turn {turn}"
        body = json.dumps({"prompt": question, "max_new_tokens": 64, "system_prompt": "s"}).encode()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        answer = await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        statuses.append(int(head.split()[1]))
        assert statuses[-1] != 200 or question in json.loads(answer)["response"], answer
    writer.close()
    return statuses


async def crowd(stack: Stack) -> tuple[Counter[int], Any]:
    async with httpx.AsyncClient(timeout=200) as client:
        prompts = [f"row {n}" for n in range(10_000)]
        options = {"max_new_tokens": 64, "system_prompt": "s"}
        batch = asyncio.create_task(client.post(f"{stack.url}/predict", json={"prompt": prompts, **options}))
        found = await asyncio.gather(*(ask(stack.ports.gateway, number) for number in range(CLIENTS)))
        rows = (await batch).json()["response"]
    assert len(rows) == len(prompts)
    assert all(prompt in row for prompt, row in zip(prompts, rows, strict=True))
    return Counter(status for statuses in found for status in statuses), rows


def test_a_crowd_is_answered_and_health_stays_quick(echo_stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    with health_polled(echo_stack.ports.gateway) as waits:
        statuses, _ = asyncio.run(crowd(echo_stack))
    assert statuses.keys() <= {200, 429, 503}
    assert statuses[200] > CLIENTS
    p99 = waits[int(len(waits) * 0.99)]
    with capsys.disabled():
        print(f"\nhealth beside {CLIENTS} clients: {len(waits)} answers, p99 {p99:.3f} s; statuses {dict(statuses)}")
    assert p99 < HEALTH_P99_S
    gateway = echo_stack.info()["gateway"]
    assert gateway["prompts_in_flight"] == 0
    assert all(isinstance(echo_stack.predict(f"{number}?"), str) for number in range(10))
