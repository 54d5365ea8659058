"""Factories of engines for real worker processes: slow, mortal or broken, as a test wants to see the pool deal with.

A worker imports this file by the path that a test gives it; no setting of the service leads here.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

POISON = 666
STEP_S = 0.02
FOLDER = str(Path(__file__).resolve().parent)


def _decode(token_ids: list[int], skip_special_tokens: bool) -> str:
    return " ".join(map(str, token_ids))


def slow_echo(setup: Any) -> tuple[Any, str]:
    """The echo engine at 20 ms a token; a prompt with the token 666 kills its process."""
    echo = importlib.import_module("1.engines.echo")

    class Mortal(echo.EchoEngine):  # type: ignore[name-defined, misc]
        async def stream(self, request: Any) -> AsyncGenerator[Any, None]:
            if POISON in request.token_ids:
                os.kill(os.getpid(), signal.SIGKILL)
            async for piece in super().stream(request):
                self.stats.count("vllm:generation_tokens_total", 1)
                yield piece

    return Mortal(setup.name, _decode, STEP_S), "cpu"


def with_child(setup: Any) -> tuple[Any, str]:
    """As :func:`slow_echo`, with a child process that counts as one of vLLM's and heeds no SIGTERM."""
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", f"'multiprocessing.spawn'; {program}"])
    return slow_echo(setup)


def with_forked_grandchild(setup: Any) -> tuple[Any, str]:
    """As :func:`slow_echo`, if a forked child has no connection, and what it opens stays open in a child of its own."""
    child = os.fork()
    if not child:
        if _is_open(int(sys.argv[1])):
            os._exit(1)
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]  # the number of the connection among them
        grandchild = os.fork()
        if not grandchild:
            os._exit(0 if all(map(_is_open, opened)) else 1)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    if os.waitpid(child, 0)[1]:
        raise AssertionError("a forked child has the connection, or its own child lost a file")
    return slow_echo(setup)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def refusing(setup: Any) -> tuple[Any, str]:
    raise importlib.import_module("1.errors").EngineRefused("this model is not for me")


def failing(setup: Any) -> tuple[Any, str]:
    raise importlib.import_module("1.errors").StartupError("no memory")


def broken(setup: Any) -> tuple[Any, str]:
    raise ValueError("a surprise\nin two lines")


def crashing(setup: Any) -> tuple[Any, str]:
    os.kill(os.getpid(), signal.SIGILL)
    time.sleep(60)
    raise AssertionError("unreachable")


def crashing_later(setup: Any) -> tuple[Any, str]:
    """Ends while it starts, after its software was found to fit."""
    engine, device = slow_echo(setup)

    async def start() -> None:
        sys.exit(3)

    engine.start = start
    return engine, device


def never(setup: Any) -> tuple[Any, str]:
    """Its start hangs."""
    engine, device = slow_echo(setup)
    engine.start = lambda: asyncio.sleep(600)
    return engine, device


def never_again(setup: Any) -> tuple[Any, str]:
    """Starts once; from then on its start hangs."""
    engine, device = slow_echo(setup)
    marker = Path(setup.settings.model_dir, "started")
    again = marker.exists()
    marker.touch()

    async def start() -> None:
        if again:
            await asyncio.sleep(600)
        engine._last_step = time.monotonic()

    engine.start = start
    return engine, device


def stuck(setup: Any) -> tuple[Any, str]:
    """The first engine stops making steps at its tenth token, though its process lives; those after it are sound."""
    engine, device = slow_echo(setup)
    marker = Path(setup.settings.model_dir, f"{setup.name} was started")
    if marker.exists():
        return engine, device
    marker.touch()
    stream = engine.stream

    async def stop_at_ten(request: Any) -> AsyncGenerator[Any, None]:
        count = 0
        async for piece in stream(request):
            count += 1
            if count == 10:
                await asyncio.sleep(600)
            yield piece

    engine.stream = stop_at_ten
    return engine, device
