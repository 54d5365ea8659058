"""Messages between the model process and a worker: whole, in order, and the same on the other side."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from llm_model.engines import worker_wire as wire
from llm_model.engines.base import EngineStatus, GenerationRequest, Sample
from llm_model.engines.stats import EngineStats
from llm_model.parameters import SamplingParameters, StructuredOutputs
from llm_model.settings import ModelSettings
from tests.unit.model.fake_engines import until

RICH = SamplingParameters(
    n=2,
    temperature=0.5,
    seed=-7,
    stop=("。", "end"),
    stop_token_ids=(3, 4),
    logit_bias=((5, -1.5),),
    structured_outputs=StructuredOutputs(choice=("a", "b")),
)
REQUEST = GenerationRequest("p1", [0, 151_643], RICH, detokenize=True, priority=1)
SAMPLE = Sample(1, [5, 6], "文", "stop", "。", -0.5, [{5: {"logprob": -0.25, "rank": 1, "decoded_token": "文"}}])


def sent(message: wire.ToWorker) -> wire.ToWorker:
    return wire.decode_to_worker(wire.encode(message)[4:])


def received(message: wire.FromWorker) -> wire.FromWorker:
    return wire.decode_from_worker(wire.encode(message)[4:])


def test_what_goes_to_a_worker_arrives_as_it_was() -> None:
    settings = ModelSettings.from_env({"MODEL_DIR": "/m", "VLLM_ENGINE_ARGS": '{"a": [1, {"b": null}]}'})
    for message in (
        wire.Setup("vllm-0", settings, 77, {"kv_cache_memory_bytes": 1 << 40}),
        wire.Submit([REQUEST], [REQUEST]),
        wire.Abort(["p1", "p2"]),
        wire.Stop(),
    ):
        assert sent(message) == message


def test_parameters_stay_hashable() -> None:
    (request,) = sent(wire.Submit([REQUEST], [])).whole  # type: ignore[union-attr]
    assert hash(request.params) == hash(RICH)


def test_what_comes_from_a_worker_arrives_as_it_was() -> None:
    stats = EngineStats()
    stats.count("vllm:request_success_total", 2, (("finished_reason", "stop"),))
    stats.histograms["vllm:e2e_request_latency_seconds"].observe([0.2, 7.0])
    for message in (
        wire.Hello("gpu"),
        wire.Refused("no"),
        wire.Failed("no memory"),
        wire.Ready("bfloat16"),
        wire.Results([("p1", [SAMPLE])], [("p2", [SAMPLE, SAMPLE])], ["p3"], [wire.Failure("p4", "INTERNAL", "x")]),
        wire.Figures(True, EngineStatus("a", "ready", running=3), stats.snapshot(), 12.5),
    ):
        assert received(message) == message


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xc1", msgspec.msgpack.encode({"type": "Results"})])
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.decode_from_worker(body)


class End:
    """One end of a connection, with what it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.closed = asyncio.Event()
        self.link = wire.Link(self.bodies.append, self.closed.set)


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    made = End(), End()
    for end, sock in zip(made, socket.socketpair(), strict=True):
        await asyncio.get_running_loop().create_unix_connection(lambda end=end: end.link, sock=sock)  # type: ignore[misc]
    yield made
    for end in made:
        end.link.close()
    await asyncio.gather(*(end.closed.wait() for end in made))


async def test_messages_keep_their_order_and_bounds(ends: tuple[End, End]) -> None:
    here, there = ends
    sizes = [0, 1, 100_000, 3, 1_000_000]
    messages = [wire.Abort(["x" * size]) for size in sizes]
    for message in messages:
        here.link.send(message)
    await until(lambda: len(there.bodies) == len(messages))
    assert [wire.decode_to_worker(body) for body in there.bodies] == messages


async def test_the_end_of_a_connection_is_told_once_and_sending_goes_on_without_error(ends: tuple[End, End]) -> None:
    here, there = ends
    there.link.close()
    await here.closed.wait()
    here.link.send(wire.Stop())


async def test_a_turn_of_the_event_loop_is_one_message() -> None:
    flushed: list[int] = []
    batch = wire.TurnBatch(lambda: flushed.append(1))

    async def touch() -> None:
        batch.touch()

    await asyncio.gather(*(touch() for _ in range(100)))
    await asyncio.sleep(0)
    assert len(flushed) == 1
    batch.touch()
    await asyncio.sleep(0)
    assert len(flushed) == 2
