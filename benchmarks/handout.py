"""How soon the prompts of a batch go to the engines' processes: `python -m benchmarks.handout`. Needs no GPU, no vLLM.

The model process's part alone: chats are rendered, tokenized, placed and sent to engines that take all and answer none.
``RAYON_NUM_THREADS`` and ``TOKENIZERS_PARALLELISM`` say with how many threads the tokenizer works.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from benchmarks import workload
from benchmarks.peers import default_model

PROMPTS, REPEATS = 4096, 7
SHARES = 4  # requests that the gateway makes of such a batch
ENGINES_A_GPU, GPUS = 4, (1, 2, 4)
MODEL = "1"  # the package: Triton names the folder by the model's version


def main() -> None:
    """Print for each number of engines: until half and until all prompts are given to one, and the CPU time of one."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if len(os.sched_getaffinity(0)) > 2 else "false")
    sys.path.insert(0, str(workload.ROOT / "model_repository" / "llm"))
    new_event_loop = importlib.import_module(f"{MODEL}.event_loop").new_event_loop
    for gpus in GPUS:
        with sinks(gpus * ENGINES_A_GPU) as sockets:
            half, whole, cpu = zip(*new_event_loop().run_until_complete(measure(sockets, gpus)), strict=True)
        told = ", ".join(f"{statistics.median(found):.0f}" for found in (half, whole))
        print(
            f"{PROMPTS} prompts for {len(sockets)} engines on {gpus} GPUs: half and all given after {told} ms "
            f"({min(whole):.0f} – {max(whole):.0f}), {statistics.median(cpu):.1f} µs of CPU a prompt",
            flush=True,
        )


@contextlib.contextmanager
def sinks(count: int) -> Iterator[list[socket.socket]]:
    """Connections to so many processes that read and forget."""
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, theirs in pairs:
        if os.fork() == 0:
            for each, _ in pairs:
                each.close()
            while theirs.recv(1 << 20):
                pass
            os._exit(0)
        theirs.close()
        ours.setblocking(False)
    try:
        yield [ours for ours, _ in pairs]
    finally:
        for ours, _ in pairs:
            ours.close()
        for _ in pairs:
            os.wait()


class Counter:
    """Notes when half and all prompts of a batch have been given to an engine."""

    def __init__(self) -> None:
        self._given = 0
        self._began = time.perf_counter()
        self.times_ms: list[float] = []
        self.all_given = asyncio.Event()

    def count(self) -> None:
        self._given += 1
        if self._given in (PROMPTS // 2, PROMPTS):
            self.times_ms.append(1e3 * (time.perf_counter() - self._began))
        if self._given == PROMPTS:
            self.all_given.set()


def engine_of(connection: socket.socket, number: int, gpus: int) -> Any:
    """An engine of the pool whose worker answers nothing. Its ``counter`` is told of every prompt."""
    base, client, stats = (
        importlib.import_module(f"{MODEL}.engines.{name}") for name in ("base", "worker_client", "stats")
    )

    class Sink:
        name, dtype = f"sink-{number}", "none"
        counter: Counter

        def __init__(self) -> None:
            self.stats = stats.EngineStats()
            self._client = client.WorkerClient(self.name, lambda _: None)
            self.cancel, self.stream = self._client.cancel, self._client.open_stream
            self.generate = self.stream  # neither is asked for

        async def start(self) -> None:
            await self._client.connect(connection)

        def begin(self, request: Any, done: Any) -> None:
            self._client.begin(request, done)
            self.counter.count()

        async def stop(self) -> None:
            self._client.close("the end")

        def is_alive(self) -> bool:
            return True

        def status(self) -> Any:
            return base.EngineStatus(self.name, "ready", gpu=str(number % gpus))

    return Sink()


async def measure(sockets: Sequence[socket.socket], gpus: int) -> list[tuple[float, float, float]]:
    """For each repeat: milliseconds until half and until all prompts are given, and microseconds of CPU for one."""
    engines = [engine_of(connection, number, gpus) for number, connection in enumerate(sockets)]
    pool = importlib.import_module(f"{MODEL}.engines.pool").EnginePool(engines, len(engines))
    await pool.start()
    tokenization = importlib.import_module(f"{MODEL}.tokenization").Tokenization.load(str(default_model()), False)
    generator = importlib.import_module(f"{MODEL}.generation").Generator(pool, tokenization, 2048)
    importlib.import_module(f"{MODEL}.garbage").spare_long_lived()
    found = [await one_batch(generator, engines, number) for number in range(REPEATS + 1)]
    await pool.stop()
    return found[1:]  # the first one warms up


async def one_batch(generator: Any, engines: Sequence[Any], number: int) -> tuple[float, float, float]:
    """Hand out one batch, then give it up."""
    parse = importlib.import_module(f"{MODEL}.parameters").parse
    call = importlib.import_module(f"{MODEL}.rows").InferenceCall
    work = workload.make(PROMPTS, 64, number)
    chats, params = [orjson.dumps(chat) for chat in work.chats], parse(orjson.dumps(work.sampling))
    size = PROMPTS // SHARES
    shares = [chats[first : first + size] for first in range(0, PROMPTS, size)]
    counter, cpu = Counter(), time.process_time()
    for engine in engines:
        engine.counter = counter
    runs = [generator.run(call("", share, True, [params] * size, partial=True)) for share in shares]
    tasks = [asyncio.ensure_future(anext(run)) for run in runs]
    await counter.all_given.wait()
    cost = 1e6 * (time.process_time() - cpu) / PROMPTS
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    half, whole = counter.times_ms
    return half, whole, cost


if __name__ == "__main__":
    main()
