"""A fake Triton and a gateway in front of it, fresh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.triton_server import FakeTriton
from tests.integration.gateway.harness import Gateway, running_gateway, running_triton


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    async with running_triton() as triton:
        yield triton


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Gateway]:
    async with running_gateway(triton) as gateway:
        yield gateway
