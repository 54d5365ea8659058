"""Many requests at once, each on a connection of its own, and how each of them ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

ANSWER_S = 200.0
DOCUMENTED = {429, 503, 504}


@dataclass(frozen=True)
class Reply:
    """``status`` is ``None`` where the connection broke; ``body`` is the JSON, or what happened instead."""

    status: int | None
    body: Any

    @property
    def is_documented(self) -> bool:
        """An answer, or an error of the table with its request id."""
        return self.status == 200 or (self.status in DOCUMENTED and bool(self.body["error"]["request_id"]))


class Burst:
    """Requests in flight; leaving the block waits for all."""

    def __init__(self, url: str, bodies: Sequence[dict[str, Any]]) -> None:
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.Client(base_url=url, timeout=ANSWER_S, limits=limits)
        self._threads = ThreadPoolExecutor(len(bodies))
        self.futures: list[Future[Reply]] = [self._threads.submit(self._post, body) for body in bodies]

    def _post(self, body: dict[str, Any]) -> Reply:
        try:
            reply = self._client.post("/predict", json=body)
        except httpx.TransportError as exc:
            return Reply(None, repr(exc))
        return Reply(reply.status_code, reply.json())

    def replies(self) -> list[Reply]:
        """How all of them ended."""
        try:
            return [future.result(ANSWER_S + 10) for future in self.futures]
        finally:
            self._threads.shutdown()
            self._client.close()


def stream_events(url: str, body: dict[str, Any], seen: list[tuple[str, dict[str, Any]]]) -> None:
    """Read a streamed answer to its end; ``seen`` gets each event's name and data as they come."""
    headers = {"Accept": "text/event-stream"}
    name = "message"
    with httpx.stream("POST", f"{url}/predict", json=body, headers=headers, timeout=ANSWER_S) as reply:
        assert reply.status_code == 200, reply.read()
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                seen.append((name, json.loads(line.removeprefix("data: "))))
                name = "message"
