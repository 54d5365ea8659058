"""One fake Triton and one gateway for all tests of a module: starting them takes longer than most of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.triton_server import FakeTriton
from tests.integration.gateway.harness import Gateway, running_gateway, running_triton


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton() -> AsyncIterator[FakeTriton]:
    async with running_triton() as triton:
        yield triton


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(triton: FakeTriton) -> AsyncIterator[Gateway]:
    async with running_gateway(triton) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _forget_what_was(triton: FakeTriton) -> None:
    triton.calls.clear()
    triton.script.clear()
