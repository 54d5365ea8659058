"""An engine that runs in a process of its own, as the pool sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import EngineDied, EngineRefused, ModelError, StartupError
from ..settings import ModelSettings
from . import worker_wire as wire
from .base import Done, EngineStatus, GenerationRequest, Outcome, Sample
from .liveness import HangRule, HangWatch
from .stats import EngineStats, StatsSnapshot
from .vllm_options import Device
from .worker_client import WorkerClient
from .worker_process import WorkerProcess

_WATCH_S = 0.2
_START_FACTOR, _START_MARGIN_S = 3.0, 90.0
_STOP_S = 10.0  # for an orderly end; then the processes are killed


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is started with.

    ``factory`` (``module:function``) makes the engine inside it, ``environ`` goes on top of this process's
    environment, ``folders`` on its module search path, ``options`` are the plan's engine arguments. ``device`` is what
    the plan counts on: an engine that computes on another one is refused.
    """

    name: str
    settings: ModelSettings
    max_model_len: int
    factory: str
    options: dict[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()
    gpu: str | None = None
    device: str | None = None


class WrongDevice(EngineRefused):
    """The engine computes on something else than the plan counted on."""

    def __init__(self, device: Device) -> None:
        super().__init__(f"the engine computes on another device: {device}")
        self.device = device


class WorkerEngine:
    """Satisfies :class:`Engine` by a worker process. After it died it may be started again: its figures go on."""

    def __init__(self, spec: WorkerSpec, hang: HangRule) -> None:
        self.name = spec.name
        self.stats = EngineStats()
        self._spec = spec
        self._hang = HangWatch(hang)
        self._before = StatsSnapshot()  # the totals of the workers that died
        self._latest = StatsSnapshot()
        self._status = EngineStatus(spec.name, "starting")
        self._last_step: float | None = None
        self._dtype = "auto"
        self._process: WorkerProcess | None = None
        self._client: WorkerClient | None = None
        self._ready = False
        self._start_limit_s = spec.settings.engine_start_s
        self._has_started = False

    @property
    def dtype(self) -> str:
        return self._dtype

    async def start(self) -> None:
        begun = time.monotonic()
        try:
            process = self._process = WorkerProcess(self._spec.factory, self._spec.environ, self._spec.folders)
        except OSError as exc:
            raise StartupError(f"{self.name} cannot be started: {exc}") from exc
        client = self._client = WorkerClient(self.name, self._take_figures)
        try:
            await client.connect(process.connection)
            self._dtype = await asyncio.wait_for(self._wait_ready(client, process), self._start_limit_s)
            process.note_children()
        except asyncio.TimeoutError as exc:
            await self._end("it did not start in time")
            raise StartupError(f"{self.name} cannot start: not ready within {self._start_limit_s:.0f} s") from exc
        except BaseException:
            await self._end("it could not start")
            raise
        if not self._has_started:  # a later start that takes far longer than the first one hangs
            later_limit_s = _START_FACTOR * (time.monotonic() - begun) + _START_MARGIN_S
            self._start_limit_s = min(self._start_limit_s, later_limit_s)
            self._has_started = True
        self._hang.started(self._last_step)
        self._ready = True

    async def _wait_ready(self, client: WorkerClient, process: WorkerProcess) -> str:
        """Return the engine's type of weights. Raises :class:`EngineRefused` or :class:`StartupError`."""
        spec = self._spec
        client.send(wire.Setup(spec.name, spec.settings, spec.max_model_len, spec.options))
        greeted = False
        while (message := await client.next_notice()) is not None:
            if isinstance(message, wire.Ready):
                return message.dtype
            if isinstance(message, wire.Refused):
                raise EngineRefused(message.reason)
            if isinstance(message, wire.Failed):
                raise StartupError(message.cause)
            greeted = True
            if spec.device not in (None, message.device):
                raise WrongDevice(message.device)
        await process.wait_ended(1.0)
        cause = process.loss() or "its connection was lost"
        if not greeted:  # a build for another processor ends by a signal at its import
            raise EngineRefused(f"{self.name} cannot be loaded: {cause}")
        raise StartupError(f"{self.name} cannot start: {cause}")

    def begin(self, request: GenerationRequest, done: Done) -> None:
        try:
            self._connected().begin(request, done)
        except EngineDied as exc:
            done(exc)

    def cancel(self, request_id: str) -> None:
        if self._client is not None:
            self._client.cancel(request_id)

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not answer.done():  # one that was cancelled in this turn of the loop
                answer.set_result(outcome)

        self.begin(request, done)
        try:
            outcome = await answer
        except asyncio.CancelledError:
            self.cancel(request.request_id)
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        client = self._connected()
        pieces = client.open_stream(request)
        try:
            while (item := await pieces.get()) is not None:
                if isinstance(item, ModelError):
                    raise item
                yield item
        finally:
            client.close_stream(request.request_id)

    def _connected(self) -> WorkerClient:
        if self._client is None or not self.is_alive():
            raise EngineDied(f"{self.name} is not running")
        return self._client

    def is_alive(self) -> bool:
        return self._ready and self._client is not None and not self._client.in_trouble

    async def wait_dead(self) -> str:
        while (reason := self._death()) is None:
            assert self._client is not None
            await self._client.wait_trouble(_WATCH_S)
        await self._end(reason)
        return reason

    def _death(self) -> str | None:
        if self._process is None or self._client is None:
            return "it was stopped"
        if (loss := self._process.loss()) is not None:
            return loss
        if self._client.in_trouble:
            return "it failed" if self._client.failed else "its connection was lost"
        busy = self._client.in_flight > 0
        return self._hang.look(busy=busy, last_step=self._last_step, heard=self._client.heard)

    def status(self) -> EngineStatus:
        age = None if self._last_step is None else max(0.0, time.monotonic() - self._last_step)
        state = "ready" if self.is_alive() else "dead" if self._ready or self._process is None else "starting"
        pid = None if self._process is None else self._process.pid
        return replace(self._status, name=self.name, state=state, seconds_since_step=age, gpu=self._spec.gpu, pid=pid)

    def _take_figures(self, figures: wire.Figures) -> None:
        self._status, self._last_step, self._latest = figures.status, figures.last_step, figures.stats
        self.stats.load(self._before.plus(figures.stats))

    async def stop(self) -> None:
        if self._process is not None and self._client is not None and self.is_alive():
            self._ready = False
            self._client.send(wire.Stop())
            await self._process.wait_ended(_STOP_S)
        await self._end("the engine was stopped")

    async def _end(self, reason: str) -> None:
        """Tell who waits for the engine; nothing of it is left afterwards."""
        self._ready = False
        client, process = self._client, self._process
        if client is not None:
            client.close(f"the engine died: {reason}")
        if process is not None:
            await asyncio.shield(process.end())
        self._client = self._process = None
        self._status, self._last_step = EngineStatus(self.name, "dead"), None
        self._before, self._latest = self._before.plus(self._latest).without_gauges(), StatsSnapshot()
        self.stats.load(self._before)
