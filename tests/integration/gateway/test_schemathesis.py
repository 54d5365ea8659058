"""Whatever the OpenAPI document allows, and much that it does not, is answered without a 500."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from gateway.app import create_app
from gateway.middleware.draining import Drain
from gateway.settings import GatewaySettings
from tests.fakes.sampling_triton import SamplingTriton
from tests.integration.gateway.harness import Gateway, running_gateway

BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def documented() -> list[tuple[str, str]]:
    """Method and path of every operation."""
    paths = create_app(GatewaySettings(), Drain()).openapi()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """A gateway on an event loop of its own, as the cases are sent one by one and block."""
    ready, stop = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        triton = SamplingTriton()
        await triton.start()
        async with running_gateway(triton, SERVED_MODEL_NAME="course", ADMIN_TOKEN="hush") as gateway:
            urls.append(_url(gateway))
            ready.set()
            await asyncio.to_thread(stop.wait)
        await triton.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield urls[0]
    stop.set()
    thread.join(30)


def _url(gateway: Gateway) -> str:
    return f"http://127.0.0.1:{gateway.port}"


# By hand, as the plugin's own parametrization reaches into parts of pytest that newer versions do not have.
@pytest.mark.parametrize("method, path", documented())
def test_no_case_is_a_fault_of_the_server(base_url: str, method: str, path: str) -> None:
    operation: Any = schemathesis.openapi.from_url(f"{base_url}/openapi.json")[path][method]
    headers = {"Authorization": "Bearer hush"} if path == "/system_prompt" else {}

    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    @BOUNDED
    def valid(case: Any) -> None:
        case.call_and_validate(checks=[not_a_server_error], headers=headers, timeout=30)

    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @BOUNDED
    def invalid(case: Any) -> None:
        case.call_and_validate(checks=[not_a_server_error], headers=headers, timeout=30)

    valid()
    if operation.body:
        invalid()
