"""A request that its caller gives up leaves the engine, whatever its state and however it is given up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, infer, model_info, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

CHAT = json.dumps([{"role": "user", "content": "什么是数据并行性？"}], ensure_ascii=False)
LONG = json.dumps({"max_tokens": 1900, "temperature": 0, "ignore_eos": True})
QUEUED_ROWS = 400  # of which a CPU's engine computes 256 at a time
REACHED_WITHIN_S = 60.0
GONE_WITHIN_S = 2.0
GONE_WITHIN_LONG_STEPS_S = 15.0  # 256 rows of a larger model keep two cores busy for seconds a step

Load = tuple[int, int]  # requests running and waiting in the engines


async def load(stack: Stack) -> Load:
    info = await asyncio.to_thread(model_info, stack.grpc_address)
    return sum(e["running"] for e in info["engines"]), sum(e["waiting"] for e in info["engines"])


async def until(stack: Stack, reached: Callable[[Load], bool], within_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while not reached(found := await load(stack)):
        assert asyncio.get_running_loop().time() < deadline, f"running and waiting are {found}"
        await asyncio.sleep(0.05)


class Call:
    """One request on a channel of its own."""

    def __init__(
        self,
        stack: Stack,
        rows: int = 1,
        *,
        streamed: bool = False,
        deadline_s: float | None = None,
        row_key: str | None = None,
    ) -> None:
        self.came = asyncio.Event()
        self._client = triton_aio.InferenceServerClient(stack.grpc_address)
        inputs = [strings("messages", [CHAT] * rows), strings("sampling_parameters", [LONG]), flag("stream", streamed)]
        if row_key is not None:
            inputs.append(flag("partial", True))

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "llm", "inputs": inputs, "parameters": row_key and {"row_key": row_key}}

        self._responses = self._client.stream_infer(requests(), stream_timeout=deadline_s)
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for _, error in self._responses:
            assert error is None, error
            self.came.set()

    async def cancel(self) -> None:
        self._responses.cancel()
        await self._ended()

    async def close_channel(self) -> None:
        await self._client.close()
        await self._ended()

    async def outlive_deadline(self) -> None:
        with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
            await self.reader
        await self._client.close()

    async def _ended(self) -> None:
        with contextlib.suppress(asyncio.CancelledError, InferenceServerException, Exception):
            await asyncio.wait_for(asyncio.shield(self.reader), REACHED_WITHIN_S)
        self.reader.cancel()
        await self._client.close()


async def assert_free(stack: Stack, within_s: float = GONE_WITHIN_S) -> None:
    await until(stack, lambda found: found == (0, 0), within_s)
    inputs = [strings("messages", [CHAT]), strings("sampling_parameters", ['{"max_tokens": 1}'])]
    answer = await asyncio.to_thread(infer, stack.grpc_address, inputs)
    assert answer.error is None, answer.message


@pytest.fixture
def many_gone_within_s(is_quick: bool) -> float:
    """How soon many rows are gone: the step that is under way is finished first."""
    return GONE_WITHIN_S if is_quick else GONE_WITHIN_LONG_STEPS_S


ways = pytest.mark.parametrize("way", ["cancel", "close_channel"])


@ways
async def test_a_running_request(stack: Stack, way: str) -> None:
    call = Call(stack)
    await until(stack, lambda found: found == (1, 0), REACHED_WITHIN_S)
    await getattr(call, way)()
    await assert_free(stack)


@ways
async def test_a_request_that_streams(stack: Stack, way: str) -> None:
    call = Call(stack, streamed=True)
    await asyncio.wait_for(call.came.wait(), REACHED_WITHIN_S)
    await getattr(call, way)()
    await assert_free(stack)


@ways
async def test_a_batch_of_which_a_part_still_waits(stack: Stack, way: str, many_gone_within_s: float) -> None:
    call = Call(stack, QUEUED_ROWS)
    await until(stack, lambda found: found[0] > 0 and found[1] > 0, REACHED_WITHIN_S)
    await getattr(call, way)()
    await assert_free(stack, many_gone_within_s)


@pytest.mark.parametrize("rows, streamed", [(1, False), (1, True), (QUEUED_ROWS, False)])
async def test_a_deadline(stack: Stack, rows: int, streamed: bool, many_gone_within_s: float) -> None:
    await Call(stack, rows, streamed=streamed, deadline_s=2.0).outlive_deadline()
    await assert_free(stack, many_gone_within_s if rows == QUEUED_ROWS else GONE_WITHIN_S)


async def test_a_neighbour_is_not_touched(stack: Stack) -> None:
    inputs = [strings("messages", [CHAT]), strings("sampling_parameters", ['{"max_tokens": 300, "ignore_eos": true}'])]
    neighbour = asyncio.create_task(asyncio.to_thread(infer, stack.grpc_address, inputs))
    call = Call(stack, 8)
    await until(stack, lambda found: found[0] >= 8, REACHED_WITHIN_S)
    await call.cancel()
    answer = await neighbour
    assert answer.error is None, answer.message
    assert answer.joined()
    await assert_free(stack)


def test_the_caller_hears_of_its_own_cancellation(stack: Stack) -> None:
    """What NVIDIA's test of its backend asks for: one error, with the status CANCELLED."""
    heard: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(stack.grpc_address) as client:
        client.start_stream(lambda result, error: heard.put(error or result))
        client.async_stream_infer("llm", [strings("messages", [CHAT]), strings("sampling_parameters", [LONG])])
        stack.wait_for(lambda: asyncio.run(load(stack)) == (1, 0), REACHED_WITHIN_S, "generating")
        client.stop_stream(cancel_requests=True)
        error = heard.get(timeout=REACHED_WITHIN_S)
    assert isinstance(error, InferenceServerException)
    assert error.status() == "StatusCode.CANCELLED"
    asyncio.run(assert_free(stack))


async def test_one_row_of_a_shared_request_ends_alone(stack: Stack) -> None:
    call = Call(stack, 3, row_key="three callers")
    await until(stack, lambda found: found == (3, 0), REACHED_WITHIN_S)
    wish = {"row_key": "three callers", "cancel_rows": "1"}
    answer = await asyncio.to_thread(infer, stack.grpc_address, [], wish)
    assert answer.error is None, answer.message
    await until(stack, lambda found: found == (2, 0), GONE_WITHIN_S)
    await call.cancel()
    await assert_free(stack)
