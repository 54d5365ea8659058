"""A fake Triton that takes sample requests, a gateway before it, and the official clients; one set for a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from tests.fakes.sampling_triton import SamplingTriton
from tests.integration.gateway.harness import Gateway, running_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton() -> AsyncIterator[SamplingTriton]:
    triton = SamplingTriton()
    await triton.start()
    try:
        yield triton
    finally:
        await triton.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(triton: SamplingTriton) -> AsyncIterator[Gateway]:
    async with running_gateway(triton, SERVED_MODEL_NAME="course") as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(gateway) as client:
        yield client


def client_of(gateway: Gateway, key: str = "none") -> openai.AsyncOpenAI:
    """The official client. It asks once: a test wants to see the first answer."""
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=key, max_retries=0)


@pytest.fixture(autouse=True)
def _forget_what_was(triton: SamplingTriton) -> None:
    triton.samples.clear()
    triton.plays.clear()
