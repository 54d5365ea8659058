"""The inside of an engine's process: which prompts it holds, whatever comes in which order."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from llm_model.engines import worker_wire as wire
from llm_model.engines.base import GenerationRequest
from llm_model.engines.worker_server import WorkerServer
from llm_model.parameters import SamplingParameters
from tests.unit.model.fake_engines import Answer, ScriptedEngine, echo, for_ever, raising, until


def server_of(engine: ScriptedEngine) -> WorkerServer:
    """A server whose engine has started; what it sends goes nowhere."""
    server = WorkerServer("none:none")
    server._engine = engine
    return server


def submit(*request_ids: str, streamed: bool = False) -> wire.Submit:
    requests = [GenerationRequest(name, [1, 2, 3], SamplingParameters(max_tokens=5)) for name in request_ids]
    return wire.Submit([], requests) if streamed else wire.Submit(requests, [])


def read(server: WorkerServer, *messages: wire.ToWorker) -> None:
    """Let the server read all messages in one go."""
    server._link.data_received(b"".join(map(wire.encode, messages)))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("answer", [echo, raising(ValueError("odd"))])
async def test_what_has_ended_is_held_no_longer(answer: Answer, streamed: bool) -> None:
    server = server_of(engine := ScriptedEngine(answer=answer))
    read(server, submit(*map(str, range(10)), streamed=streamed))
    await until(lambda: not server._tasks)
    assert (len(engine.requests), engine.running) == (10, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_prompts_that_are_given_up_in_the_read_that_brings_them_leave_nothing(streamed: bool) -> None:
    server = server_of(engine := ScriptedEngine(answer=for_ever))
    names = [str(number) for number in range(100)]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        read(server, submit(*names, streamed=streamed), wire.Abort(names))
        await until(lambda: not server._tasks)
        gc.collect()
    assert (server._tasks, engine.running, found) == ({}, 0, [])


async def test_a_prompt_whose_name_comes_again_can_still_be_given_up() -> None:
    server = server_of(engine := ScriptedEngine(answer=for_ever))
    read(server, submit("r"), wire.Abort(["r"]), submit("r"))
    await until(lambda: engine.running == 1)
    for _ in range(3):  # until the first one's end is known
        await asyncio.sleep(0)
    assert list(server._tasks) == ["r"]
    read(server, wire.Abort(["r"]))
    await until(lambda: not server._tasks)
    assert (engine.aborted, engine.running) == (1, 0)
