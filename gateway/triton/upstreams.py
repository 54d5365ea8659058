"""The Triton servers behind this gateway: which of them is ready, and which takes the next request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.errors import GatewayError, NotReady
from gateway.metrics import Metrics
from gateway.readiness import DEFAULT_PROBE_TIMES, ProbeTimes, Readiness, State
from gateway.settings import Limits
from gateway.tracing import CallTrace, untraced
from gateway.triton.client import TritonClient
from gateway.triton.sharing import SharedCalls
from gateway.triton.wire import Conversations, encode_request

ATTEMPTS = 3  # a prompt that takes the model down each time must not do so for ever
_PROBE = Conversations(
    messages=[orjson.dumps([{"role": "user", "content": "1"}])],
    sampling_parameters=[orjson.dumps({"max_tokens": 1, "temperature": 0.0})],
    request_id="probe",
)
_PROBE_DEADLINE_S = 600.0  # a probe behind a long queue is given up earlier only when the model makes no progress
_STATUS_TIMEOUT_S = 2.0


class Upstream:
    """One Triton server: its client, its state and the number of prompts it has in hand."""

    def __init__(self, url: str, times: ProbeTimes, trace: CallTrace) -> None:
        self.client = TritonClient(url, trace)
        self.readiness = Readiness(url, self._probe, lambda: self.client.info(_STATUS_TIMEOUT_S), times)
        self.shared = SharedCalls(self.client, self.readiness)
        self.prompts_in_flight = 0
        self._watch: asyncio.Task[None] | None = None
        self._last_info: Mapping[str, Any] | None = None
        self._told_at = -math.inf

    def open(self) -> None:
        self.client.open()
        self._watch = asyncio.create_task(self.readiness.run())

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self.shared.close()
        await self.client.close()

    async def info(self) -> Mapping[str, Any] | None:
        """The model's status; while it does not answer, what it said before, without engines; ``None`` at first."""
        asked_at = time.monotonic()
        try:
            self._last_info = await self.client.info(_STATUS_TIMEOUT_S)
        except GatewayError:
            return self._last_info and {**self._last_info, "engines": []}
        self._told_at = asked_at
        return self._last_info

    @property
    def properties(self) -> Mapping[str, Any] | None:
        """What the model has said of itself since it was last in doubt, after which it may be another one."""
        return self._last_info if self._told_at > self.readiness.suspected_at else None

    async def _probe(self) -> None:
        await self.client.all_responses(encode_request(_PROBE, [0]), _PROBE_DEADLINE_S)


class Upstreams:
    """All Triton servers. The service is ready when one of them is."""

    def __init__(
        self, urls: Sequence[str], times: ProbeTimes = DEFAULT_PROBE_TIMES, trace: CallTrace = untraced
    ) -> None:
        self._upstreams = [Upstream(url, times, trace) for url in urls]

    async def open(self) -> None:
        for upstream in self._upstreams:
            upstream.open()

    async def close(self) -> None:
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams))

    @property
    def state(self) -> State:
        states = {upstream.readiness.state for upstream in self._upstreams}
        if "ready" in states:
            return "ready"
        return "recovering" if "recovering" in states else "warming"

    @property
    def is_dead(self) -> bool:
        """Whether no server is ready and none has an engine that comes back by itself."""
        return all(upstream.readiness.is_dead for upstream in self._upstreams)

    @property
    def ready_count(self) -> int:
        return sum(upstream.readiness.is_ready for upstream in self._upstreams)

    def choose(self) -> Upstream:
        """The ready server with the fewest prompts in hand; for a caller who has waited for one in this very turn."""
        ready = [upstream for upstream in self._upstreams if upstream.readiness.is_ready]
        return min(ready, key=lambda upstream: upstream.prompts_in_flight)

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until a server is ready; whether one is."""
        deadline = time.monotonic() + timeout_s
        while not self.ready_count and (left_s := deadline - time.monotonic()) > 0:
            await self._wait_for_a_change(left_s)  # by now the server may be in doubt again
        return self.ready_count > 0

    async def _wait_for_a_change(self, timeout_s: float) -> None:
        waits = [asyncio.ensure_future(upstream.readiness.wait_ready()) for upstream in self._upstreams]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def require_ready(self, limits: Limits, metrics: Metrics) -> None:
        """Wait until a server is ready. Raises :class:`NotReady` if none is within the limits."""
        started = time.monotonic()
        if not await self.wait_ready(min(limits.ready_timeout_s, limits.request_timeout_s)):
            raise NotReady(f"the model is {self.state}")
        metrics.ready_wait.observe(time.monotonic() - started)

    def up(self) -> list[tuple[str, bool]]:
        """The address of each server, and whether its model answers."""
        return [(upstream.client.url, upstream.readiness.is_ready) for upstream in self._upstreams]

    async def properties(self) -> Mapping[str, Any]:
        """What does not change while a model runs, as told by the first server that told it; empty until one has."""
        for upstream in self._upstreams:
            if upstream.properties is not None:
                return upstream.properties
        return await self.info() or {}

    async def info(self) -> Mapping[str, Any] | None:
        """The status of the model, engines of all servers together; ``None`` if no server has ever told it."""
        found = await asyncio.gather(*(upstream.info() for upstream in self._upstreams))
        answers = [info for info in found if info is not None]
        if not answers:
            return None
        return {**answers[0], "engines": [engine for info in answers for engine in info.get("engines") or ()]}
