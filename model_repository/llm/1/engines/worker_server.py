"""The inside of an engine's process: takes prompts from the model process, runs them, sends the results."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from ..errors import EngineRefused, ModelError, StartupError
from ..event_loop import new_event_loop
from ..garbage import spare_long_lived
from ..logs import configure, logger
from . import worker_wire as wire
from .base import Engine, GenerationRequest, Sample
from .process_tree import end_own_session
from .vllm_options import Device

_FIGURES_S = 0.2  # how often figures are sent while the engine works
_HEARTBEAT_S = 1.0  # and at least


def serve(descriptor: int, factory: str) -> int:
    """Run until told to stop; 1 if the engine could not start."""
    connection = socket.socket(fileno=descriptor)
    # A forked engine process must not keep the connection open: its end is how a death is noticed at once.
    os.register_at_fork(after_in_child=partial(_drop, connection))
    return new_event_loop().run_until_complete(_serve(connection, factory))


def _drop(connection: socket.socket) -> None:
    """Close this process's copy of the connection, once: the handler runs again in the children of a forked child."""
    descriptor = connection.detach()  # -1 from then on
    if descriptor >= 0:
        os.close(descriptor)


async def _serve(connection: socket.socket, factory: str) -> int:
    return await WorkerServer(factory).run(connection)


class WorkerServer:
    """One engine and the prompts on it."""

    def __init__(self, factory: str) -> None:
        self._factory = factory
        self._setup: asyncio.Future[wire.Setup] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._closed = asyncio.Event()
        self._leaving = False
        self._link = wire.Link(self._receive, self._lost)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._outgoing = Outgoing(self._link)
        self._engine: Engine | None = None

    async def run(self, connection: socket.socket) -> int:
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=connection)
        engine = await self._start(await self._setup)
        if engine is None:
            return await self._hang_up(1)
        telling = asyncio.ensure_future(self._tell_figures(engine))
        await self._stop.wait()
        telling.cancel()
        await engine.stop()
        return await self._hang_up(0)

    async def _start(self, setup: wire.Setup) -> Engine | None:
        configure(setup.settings.log_level, setup.settings.log_format)
        try:
            engine, device = make_engine(self._factory, setup)
            self._link.send(wire.Hello(device))
            await engine.start()
        except EngineRefused as exc:
            self._link.send(wire.Refused(str(exc)))
        except StartupError as exc:
            self._link.send(wire.Failed(str(exc)))
        except Exception as exc:
            logger.exception("the engine %s cannot start", setup.name)
            self._link.send(wire.Failed(f"{type(exc).__name__}: {exc}".splitlines()[0]))
        else:
            self._engine = engine
            spare_long_lived()
            self._link.send(_figures(engine))
            self._link.send(wire.Ready(engine.dtype))
            return engine
        return None

    async def _hang_up(self, status: int) -> int:
        """Let what was said last go out, and end."""
        self._leaving = True
        self._link.close()
        await self._closed.wait()
        return status

    def _lost(self) -> None:
        if not self._leaving:  # the model process has gone; so must everything here
            end_own_session()
        self._closed.set()

    def _receive(self, body: bytes) -> None:
        message = wire.decode_to_worker(body)
        if isinstance(message, wire.Submit):
            for request in message.whole:
                self._begin(request, streamed=False)
            for request in message.streamed:
                self._begin(request, streamed=True)
        elif isinstance(message, wire.Abort):
            for request_id in message.request_ids:
                task = self._tasks.get(request_id)
                if task is not None:
                    task.cancel()
        elif isinstance(message, wire.Setup):
            self._setup.set_result(message)
        else:
            self._stop.set()

    def _begin(self, request: GenerationRequest, *, streamed: bool) -> None:
        run = self._stream if streamed else self._generate
        task = asyncio.get_running_loop().create_task(self._guard(run, request))
        self._tasks[request.request_id] = task
        # Not in the task: it never takes its first step if it is cancelled in the read that began it.
        task.add_done_callback(partial(self._forget, request.request_id))

    def _forget(self, request_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(request_id) is task:  # and not a newer one
            del self._tasks[request_id]

    async def _guard(self, run: Callable[[GenerationRequest], Awaitable[None]], request: GenerationRequest) -> None:
        try:
            await run(request)
        except ModelError as exc:
            self._outgoing.failed(request.request_id, exc.code, exc.message)
        except asyncio.CancelledError:
            pass  # the model process does not wait for it any longer
        except Exception:
            logger.exception("the engine failed on a prompt unexpectedly")
            self._outgoing.failed(request.request_id, ModelError.code, "the model failed on this prompt")

    async def _generate(self, request: GenerationRequest) -> None:
        self._outgoing.whole(request.request_id, await self._ready_engine.generate(request))

    async def _stream(self, request: GenerationRequest) -> None:
        async with contextlib.aclosing(self._ready_engine.stream(request)) as pieces:
            async for piece in pieces:
                self._outgoing.piece(request.request_id, piece)
        self._outgoing.ended(request.request_id)

    @property
    def _ready_engine(self) -> Engine:
        assert self._engine is not None  # prompts come after Ready
        return self._engine

    async def _tell_figures(self, engine: Engine) -> None:
        """Figures after steps, a few times a second, and a sign of life at least once a second."""
        told_at, told_step = time.monotonic(), -1.0
        while True:
            await asyncio.sleep(_FIGURES_S)
            figures = _figures(engine)
            now, step = time.monotonic(), figures.last_step or 0.0
            if step > told_step + 1e-3 or now - told_at >= _HEARTBEAT_S or not figures.alive:
                self._link.send(figures)
                told_at, told_step = now, step


class Outgoing:
    """Results of one turn of the event loop, sent together."""

    def __init__(self, link: wire.Link) -> None:
        self._link = link
        self._batch = wire.TurnBatch(self._flush)
        self._pending = wire.Results([], [], [], [])

    def piece(self, request_id: str, samples: list[Sample]) -> None:
        self._pending.pieces.append((request_id, samples))
        self._batch.touch()

    def whole(self, request_id: str, samples: list[Sample]) -> None:
        self._pending.whole.append((request_id, samples))
        self._batch.touch()

    def ended(self, request_id: str) -> None:
        self._pending.ended.append(request_id)
        self._batch.touch()

    def failed(self, request_id: str, code: str, message: str) -> None:
        self._pending.failed.append(wire.Failure(request_id, code, message))
        self._batch.touch()

    def _flush(self) -> None:
        results, self._pending = self._pending, wire.Results([], [], [], [])
        self._link.send(results)


def make_engine(factory: str, setup: wire.Setup) -> tuple[Engine, Device]:
    """Call a factory, ``module:function``; a module that begins with a dot is one of this folder."""
    module, _, function = factory.partition(":")
    make = getattr(importlib.import_module(module, __package__), function)
    return cast("tuple[Engine, Device]", make(setup))


def _figures(engine: Engine) -> wire.Figures:
    status = engine.status()
    age = status.seconds_since_step
    last_step = None if age is None else time.monotonic() - age
    return wire.Figures(engine.is_alive(), status, engine.stats.snapshot(), last_step)
