"""Engines that die or hang on the real service, two of them, under load: no request is lost that need not be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.settings import DEFAULT_SYSTEM_PROMPT
from tests.e2e.conftest import Stacks
from tests.e2e.stack import Stack, descendants, is_running, read_jsonl
from tests.e2e.test_answers import PARAMETERS, offline_texts
from tests.e2e.triton_client import infer, requests_in_engines, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

HANG_S = 15
WHOLE_AGAIN_S = 300.0  # two engines load at a time on two busy cores
IN_FLIGHT = 200
LONG: dict[str, Any] = {"max_new_tokens": 150, "ignore_eos": True, "system_prompt": "s"}


@pytest.fixture
def stack(stacks: Stacks, course_qa_model: Path) -> Stack:
    """One service with two engines for all faults."""
    settings = {"MODEL_DIR": str(course_qa_model), "ENGINES_PER_GPU": "2", "ENGINE_HANG_S": str(HANG_S)}
    return stacks.get("two-engines", settings)


@pytest.fixture(autouse=True)
def whole(stack: Stack) -> Iterator[None]:
    """Before and after each fault both engines are there, and Triton is the one that was started."""
    stack.wait_for(lambda: states(stack) == ["ready", "ready"], WHOLE_AGAIN_S, "whole")
    triton = process(stack.process.pid, b"bin/tritonserver")
    yield
    stack.wait_for(lambda: states(stack) == ["ready", "ready"], WHOLE_AGAIN_S, "whole again")
    stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 0, 30, "at rest")
    assert process(stack.process.pid, b"bin/tritonserver") == triton
    stack.pids |= descendants(stack.process.pid)


def engines(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.info()["engines"]
    return found


def states(stack: Stack) -> list[str]:
    return [engine["state"] for engine in engines(stack)]


def restarts(stack: Stack, name: str) -> int:
    return sum(engine["restarts"] for engine in engines(stack) if engine["name"] == name)


def process(root: int, words: bytes) -> int:
    """The process below ``root`` whose command line has these words."""
    (found,) = [pid for pid in descendants(root) if words in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def core_of(engine: dict[str, Any]) -> int:
    return process(engine["pid"], b"EngineCore")


async def under_load(stack: Stack, fault: Callable[[], None]) -> list[httpx.Response]:
    """Send requests, let the fault happen while all are in flight, and return their answers."""
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    async with httpx.AsyncClient(timeout=400, limits=limits) as client:
        asked = [
            asyncio.ensure_future(client.post(f"{stack.url}/predict", json={"prompt": f"{n}?", **LONG}))
            for n in range(IN_FLIGHT)
        ]
        await asyncio.to_thread(at_work, stack)
        await asyncio.to_thread(fault)
        return await asyncio.gather(*asked)


def at_work(stack: Stack) -> None:
    """Wait until the load has reached the engines."""
    stack.wait_for(lambda: requests_in_engines(stack.grpc_address) >= IN_FLIGHT // 2, 60, "at work")


def assert_all_answered(replies: list[httpx.Response]) -> None:
    failed = [(reply.status_code, reply.text[:300]) for reply in replies if reply.status_code != 200]
    assert failed == []
    assert all(reply.json()["response"] for reply in replies)


@pytest.mark.parametrize("victim", ["core", "worker"])
async def test_no_request_fails_when_one_of_two_engines_is_killed(stack: Stack, victim: str) -> None:
    first = engines(stack)[0]
    of_first = [first["pid"], *descendants(first["pid"])]
    killed = core_of(first) if victim == "core" else first["pid"]
    assert_all_answered(await under_load(stack, lambda: os.kill(killed, signal.SIGKILL)))
    stack.wait_for(lambda: restarts(stack, "vllm-0") > first["restarts"], WHOLE_AGAIN_S, "whole again")
    assert [pid for pid in of_first if is_running(pid)] == []


async def test_no_request_fails_when_an_engine_hangs(stack: Stack) -> None:
    first = engines(stack)[0]
    of_first = [first["pid"], *descendants(first["pid"])]
    core = core_of(first)
    assert_all_answered(await under_load(stack, lambda: os.kill(core, signal.SIGSTOP)))
    stack.wait_for(lambda: restarts(stack, "vllm-0") > first["restarts"], WHOLE_AGAIN_S, "whole again")
    assert [pid for pid in of_first if is_running(pid)] == []


async def test_without_any_engine_requests_wait_streams_end_and_readiness_says_so(stack: Stack) -> None:
    async with httpx.AsyncClient(timeout=400) as client:
        loop, streaming = asyncio.get_running_loop(), asyncio.Event()

        def kill_all() -> None:
            asyncio.run_coroutine_threadsafe(streaming.wait(), loop).result(60)
            for engine in engines(stack):
                os.kill(core_of(engine), signal.SIGKILL)

        loaded = asyncio.ensure_future(under_load(stack, kill_all))
        await asyncio.to_thread(at_work, stack)
        heard: list[dict[str, Any]] = []
        async for event in events(client, f"{stack.url}/predict", {"prompt": "1?", **LONG, "max_new_tokens": 1500}):
            heard.append(event)
            streaming.set()
        killed_at = time.monotonic()
        assert heard[-1]["event"] == "error"
        while (await client.get(f"{stack.url}/health/ready")).status_code != 503:
            assert time.monotonic() - killed_at < 10.0, "ready without an engine"
            await asyncio.sleep(0.1)
        assert_all_answered(await loaded)
        assert (await client.get(f"{stack.url}/health/ready")).status_code == 200


def test_two_engines_give_the_texts_of_vllm_offline(stack: Stack, course_qa_model: Path, shared_dir: Path) -> None:
    questions = [question["prompt"] for question in read_jsonl(shared_dir / "data" / "basic_qa.jsonl")]
    system = {"role": "system", "content": DEFAULT_SYSTEM_PROMPT}
    chats = [[system, {"role": "user", "content": question}] for question in questions]
    inputs = [
        strings("messages", [json.dumps(chat, ensure_ascii=False) for chat in chats]),
        strings("sampling_parameters", [json.dumps({**PARAMETERS, "stop": ["<|im_end|>", "<|endoftext|>"]})]),
    ]
    answer = infer(stack.grpc_address, inputs)
    assert answer.error is None
    served = [answer.joined(place) for place in range(len(chats))]
    assert served == offline_texts(course_qa_model, stack.info(), chats)


async def events(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The server-sent events of a streamed prediction: their kind and their data."""
    async with client.stream("POST", url, json=body, headers={"Accept": "text/event-stream"}) as reply:
        assert reply.status_code == 200
        kind = "message"
        async for line in reply.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield {"event": kind, "data": json.loads(line.removeprefix("data: "))}
                kind = "message"
