"""Clients that send slowly do not make the others wait (C2)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SLOW_CLIENTS = 200
LEAST_ROUNDS, MOST_ROUNDS, REQUESTS = 4, 12, 30
QUESTIONS = [f"question {number}" for number in range(100)]
MOST_GROWTH = 1.2
BEGINNINGS = [
    b"GET / HTTP/1.1\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{",
]
TRICKLE = [b"X-A: b\r\n", b" "]


async def send_slowly(port: int, number: int, connected: threading.Semaphore) -> None:
    """A few bytes a second, until the gateway has enough of it."""
    kind = number % len(BEGINNINGS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(BEGINNINGS[kind])
        connected.release()
        while not reader.at_eof():
            await asyncio.sleep(1)
            writer.write(TRICKLE[kind])
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@contextlib.contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """All of them are connected when the block begins."""
    connected, loop = threading.Semaphore(0), asyncio.new_event_loop()

    async def crowd() -> None:
        await asyncio.gather(*(send_slowly(port, number, connected) for number in range(SLOW_CLIENTS)))

    crowding = loop.create_task(crowd())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([crowding])))
    thread.start()
    try:
        for _ in range(SLOW_CLIENTS):
            assert connected.acquire(timeout=30)
        yield
        assert not crowding.done()
    finally:
        loop.call_soon_threadsafe(crowding.cancel)
        thread.join()
        loop.close()


def p95_s(client: httpx.Client) -> float:
    """Of some requests, one after the other."""
    waits = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        reply = client.post("/predict", json={"prompt": QUESTIONS, "max_new_tokens": 16})
        waits.append(time.perf_counter() - began)
        assert reply.status_code == 200
    return sorted(waits)[int(len(waits) * 0.95)]


def test_slow_clients_hold_nobody_up(echo_stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    alone, beside = [], []
    with httpx.Client(base_url=echo_stack.url, timeout=60) as client:
        p95_s(client)
        for turn in range(MOST_ROUNDS):
            alone.append(p95_s(client))
            with slow_clients(echo_stack.ports.gateway):
                beside.append(p95_s(client))
            # The quietest round of each counts: what else the machine does is no slow client's doing.
            if turn + 1 >= LEAST_ROUNDS and min(beside) < MOST_GROWTH * min(alone):
                break
    with capsys.disabled():
        print(f"\np95 alone {sorted(alone)}, beside {SLOW_CLIENTS} slow clients {sorted(beside)}")
    assert min(beside) < MOST_GROWTH * min(alone)
