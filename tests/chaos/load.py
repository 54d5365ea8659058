"""Steady load on `/predict`, and how every single request ended."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

REQUEST_S = 300.0
LOST = "connection lost"
LEFT = "client left"
UNANSWERED = "unanswered"


@dataclass(frozen=True)
class Ending:
    """How a request ended: ``answered``, or the reason. Times are monotonic."""

    begun: float
    ended: float
    outcome: str


@dataclass
class Load:
    """``clients`` that each send one request after the other, from a thread of their own, until stopped.

    ``body`` makes the next request; a share ``leaving`` of the clients gives up midway, each time anew.
    """

    url: str
    clients: int
    seed: int
    body: Callable[[random.Random], dict[str, Any]]
    leaving: float = 0.0
    most: int | None = None
    endings: list[Ending] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout_s: float = REQUEST_S + 30) -> None:
        """Send nothing more, and wait until the last request has ended."""
        self._stop.set()
        self._thread.join(timeout_s)

    def join(self, timeout_s: float) -> None:
        """Wait until ``most`` requests have ended."""
        self._thread.join(timeout_s)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def outcomes(self) -> Counter[str]:
        """Endings by outcome; what has no end is unanswered."""
        counted = Counter(ending.outcome for ending in list(self.endings))
        counted[UNANSWERED] = self.sent - len(self.endings)
        return counted

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.url, timeout=REQUEST_S, limits=limits) as client:
            await asyncio.gather(*(self._one_client(client) for _ in range(self.clients)))

    async def _one_client(self, client: httpx.AsyncClient) -> None:
        while not self._stop.is_set() and (self.most is None or self.sent < self.most):
            self.sent += 1
            begun = time.monotonic()
            outcome = await self._ask(client, self.body(self._random))
            self.endings.append(Ending(begun, time.monotonic(), outcome))
            if outcome == LOST:
                await asyncio.sleep(0.2)  # nobody listens: what is not tried is not counted

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any]) -> str:
        leaves_after = self._random.uniform(0.02, 1.0) if self._random.random() < self.leaving else None
        try:
            reply = await asyncio.wait_for(client.post("/predict", json=body), leaves_after)
        except (TimeoutError, asyncio.TimeoutError):
            return LEFT
        except httpx.TimeoutException:
            return UNANSWERED
        except httpx.TransportError:
            return LOST
        return outcome_of(reply, body)


def outcome_of(reply: httpx.Response, body: dict[str, Any]) -> str:
    """``answered`` only if every prompt has its answer."""
    answer = reply.json()
    if reply.status_code != 200:
        error = answer["error"]
        return f"{reply.status_code} {error['type']}" if error["request_id"] else "an error without a request id"
    asked, told = body["prompt"], answer["response"]
    if answer.get("errors"):
        return f"row error {answer['errors'][0]['type']}"
    whole = isinstance(told, str) if isinstance(asked, str) else len(told) == len(asked)
    return "answered" if whole else "an answer of the wrong shape"
