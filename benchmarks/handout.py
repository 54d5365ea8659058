"""How soon the prompts of a batch go to the engines' processes: `python -m benchmarks.handout`. Needs no GPU, no vLLM.

The model process's part alone: chats are rendered, tokenized, placed and sent to engines that take all and answer none.
``RAYON_NUM_THREADS`` and ``TOKENIZERS_PARALLELISM`` say with how many threads the tokenizer works.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import time
from collections.abc import AsyncGenerator, Iterator, Sequence

import orjson

import benchmarks.model_package  # noqa: F401 - makes `llm_model` importable
from benchmarks import workload
from benchmarks.peers import default_model
from llm_model import parameters
from llm_model.engines.base import Done, EngineStatus, GenerationRequest, Sample
from llm_model.engines.pool import EnginePool
from llm_model.engines.stats import EngineStats
from llm_model.engines.vllm_options import prepare_environment
from llm_model.engines.worker_client import WorkerClient
from llm_model.event_loop import new_event_loop
from llm_model.garbage import spare_long_lived
from llm_model.generation import Generator
from llm_model.rows import InferenceCall
from llm_model.settings import ModelSettings
from llm_model.tokenization import Tokenization

PROMPTS, REPEATS = 4096, 7
SHARES = 4  # requests that the gateway makes of such a batch
ENGINES_A_GPU, GPUS = 4, (1, 2, 4)
MAX_MODEL_LEN = 2048


def main() -> None:
    """Print for each number of engines: until half and until all prompts are given to one, and the CPU time of one."""
    settings = ModelSettings.from_env({"MODEL_DIR": str(default_model())})
    prepare_environment(settings)
    tokenization = Tokenization.load(settings.model_dir, settings.trust_remote_code)
    for gpus in GPUS:
        with sinks(gpus * ENGINES_A_GPU) as sockets, contextlib.closing(new_event_loop()) as loop:
            half, whole, cpu = zip(*loop.run_until_complete(measure(tokenization, sockets, gpus)), strict=True)
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


class Sink:
    """An engine of the pool whose worker answers nothing. Its ``counter`` is told of every prompt."""

    dtype = "none"
    counter: Counter

    def __init__(self, name: str, gpu: str, connection: socket.socket) -> None:
        self.name = name
        self.stats = EngineStats()
        self._gpu = gpu
        self._connection = connection
        self._client = WorkerClient(name, lambda _: None)
        self.cancel = self._client.cancel

    async def start(self) -> None:
        await self._client.connect(self._connection)

    def begin(self, request: GenerationRequest, done: Done) -> None:
        self._client.begin(request, done)
        self.counter.count()

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        raise NotImplementedError

    def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        raise NotImplementedError

    async def stop(self) -> None:
        self._client.close("the end")

    def is_alive(self) -> bool:
        return True

    def status(self) -> EngineStatus:
        return EngineStatus(self.name, "ready", gpu=self._gpu)


async def measure(
    tokenization: Tokenization, sockets: Sequence[socket.socket], gpus: int
) -> list[tuple[float, float, float]]:
    """For each repeat: milliseconds until half and until all prompts are given, and microseconds of CPU for one."""
    engines = [Sink(f"sink-{number}", str(number % gpus), connection) for number, connection in enumerate(sockets)]
    pool = EnginePool(engines, len(engines))
    await pool.start()
    generator = Generator(pool, tokenization, MAX_MODEL_LEN)
    spare_long_lived()
    found = [await one_batch(generator, engines, number) for number in range(REPEATS + 1)]
    await pool.stop()
    return found[1:]  # the first one warms up


async def one_batch(generator: Generator, engines: Sequence[Sink], number: int) -> tuple[float, float, float]:
    """Hand out one batch, then give it up."""
    work = workload.make(PROMPTS, 64, number)
    chats, params = [orjson.dumps(chat) for chat in work.chats], parameters.parse(orjson.dumps(work.sampling))
    size = PROMPTS // SHARES
    shares = [chats[first : first + size] for first in range(0, PROMPTS, size)]
    counter, cpu = Counter(), time.process_time()
    for engine in engines:
        engine.counter = counter
    runs = [generator.run(InferenceCall("", share, True, [params] * size, partial=True)) for share in shares]
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
