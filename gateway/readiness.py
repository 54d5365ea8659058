"""Whether the model generates: a probe of one token, asked for again and again while no real answers come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import GatewayError, UpstreamUnavailable

logger = logging.getLogger(__name__)

State = Literal["warming", "ready", "recovering"]


@dataclass(frozen=True)
class ProbeTimes:
    """Times of the probe in seconds.

    After ``look_s``, and again and again, the model is asked what it does meanwhile: without any engine it is not
    ready. ``patience_s`` is how long an engine may take for the probe alone, and the model for the answer to that. An
    engine with other work may be busy with one long step (a long prompt on a CPU) for ``busy_stall_s`` before that
    counts as a hang.
    """

    interval_s: float = 2.0
    look_s: float = 1.0
    patience_s: float = 4.0
    busy_stall_s: float = 20.0
    first_retry_s: float = 0.1
    last_retry_s: float = 1.0


DEFAULT_PROBE_TIMES = ProbeTimes()


class Readiness:
    """The state of one model server: ``warming`` until it first answers, ``recovering`` after a fault.

    ``probe`` generates one token and raises :class:`GatewayError` if that fails; ``ask_status`` returns the model's
    status within a time-out or raises. :meth:`run` is to be kept running in a task.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[None]],
        ask_status: Callable[[], Awaitable[Mapping[str, Any]]],
        times: ProbeTimes = DEFAULT_PROBE_TIMES,
    ) -> None:
        self._name = name
        self._probe = probe
        self._ask_status = ask_status
        self._times = times
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._retry_s = times.first_retry_s
        self.suspected_at = -1.0
        """When the model was last put in doubt (``time.monotonic``)."""
        self._answered_at = -1.0
        self.state: State = "warming"
        self.is_dead = False
        """The model has said that its engines are dead and will not come back by themselves."""

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    async def wait_ready(self) -> None:
        """Return when the model is ready; the caller sets the limit."""
        await self._ready.wait()

    def confirm(self, sent_at: float) -> None:
        """The model has answered a request that was sent at ``sent_at`` (``time.monotonic``)."""
        if sent_at < self.suspected_at:
            return  # sent before the latest fault: says nothing about now
        self._answered_at = time.monotonic()
        self._retry_s = self._times.first_retry_s
        self.is_dead = False
        if self.state != "ready":
            logger.info("the model at %s is ready", self._name)
            self.state = "ready"
            self._ready.set()

    def suspect(self, reason: str) -> None:
        """A request failed in a way that puts the model in doubt: not ready until it has answered again."""
        self.suspected_at = time.monotonic()
        self._ready.clear()
        self._wake.set()
        if self.state == "ready":
            logger.warning("the model at %s is recovering: %s", self._name, reason)
            self.state = "recovering"

    async def run(self) -> None:
        """Probe for ever: at intervals while ready and idle, with a short back-off while not."""
        while True:
            answered_at = self._answered_at
            await self._sleep(self._times.interval_s if self.is_ready else self._retry_s)
            if not self.is_ready or self._answered_at == answered_at:  # else real answers came meanwhile
                await self._check()

    async def _check(self) -> None:
        """One probe; it goes on for as long as the model makes progress with the work before it."""
        started = time.monotonic()
        probe = asyncio.ensure_future(self._probe())
        try:
            while not probe.done() and self._answered_at < started:
                await asyncio.wait({probe}, timeout=min(self._times.look_s, self._times.patience_s))
                if not probe.done() and not await self._makes_progress(time.monotonic() - started):
                    raise UpstreamUnavailable("the probe is not answered and the model makes no progress")
            if probe.done():
                await probe
                self.confirm(started)
        except GatewayError as exc:
            self._failed(exc)
            self.is_dead = await self._engines_are_dead()
        except Exception:  # the loop must outlive any mistake in a probe
            logger.exception("the probe of %s failed unexpectedly", self._name)
            self._failed(UpstreamUnavailable("the probe failed"))
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

    def _failed(self, exc: GatewayError) -> None:
        self._retry_s = min(self._retry_s * 2, self._times.last_retry_s)
        self.suspect(exc.message)
        self._wake.clear()  # the next probe waits its back-off

    async def _engines_are_dead(self) -> bool:
        """Whether the model says so of all its engines. One that does not answer says nothing."""
        try:
            engines = (await self._ask_status()).get("engines") or ()
            return bool(engines) and all(engine.get("state") == "dead" for engine in engines)
        except GatewayError:
            return False
        except Exception:  # as in a probe
            logger.exception("the status of %s cannot be read", self._name)
            return False

    async def _makes_progress(self, waited_s: float) -> bool:
        try:
            status = await self._ask_status()
        except GatewayError:
            return waited_s < self._times.patience_s
        return makes_progress(status, waited_s, self._times)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or until a request put the model in doubt."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()


def makes_progress(status: Mapping[str, Any], waited_s: float, times: ProbeTimes) -> bool:
    """Whether any engine is at work on what stands before a probe that has waited for ``waited_s``.

    An engine that starts for the first time is at work; while all are being restarted there is none. One that has
    nothing but the probe must have made a step since; one with other work may be within a single long one.
    """
    for engine in status.get("engines") or ():
        if engine.get("state") == "starting":
            return True
        if engine.get("state") != "ready":
            continue
        age = engine.get("seconds_since_step")
        without_step = waited_s if age is None else min(age, waited_s)
        has_other_work = engine.get("running", 0) + engine.get("waiting", 0) > 1
        if without_step < (times.busy_stall_s if has_other_work else times.patience_s):
            return True
    return False
