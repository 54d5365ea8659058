"""The process: signals, draining, exit codes, the port. Run for real, as ``python -m gateway``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.peers import free_ports
from tests.fakes.triton_server import FakeTriton, hang, wait_for
from tests.integration.gateway.harness import error_of

ROOT = Path(__file__).resolve().parents[3]


class GatewayProcess:
    """``python -m gateway`` in front of a fake Triton, and a client for it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)

    async def wait_ready(self) -> None:
        while True:
            try:
                if (await self.client.get("/")).status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.returncode is None
            await asyncio.sleep(0.05)

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def wait_draining(self) -> httpx.Response:
        """Send requests until one is refused, and return that answer."""
        while True:
            answer = await self.client.post("/predict", json={"prompt": []})
            if answer.status_code != 200:
                return answer

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 20)


@asynccontextmanager
async def _gateway_process(triton: FakeTriton, **environ: str) -> AsyncIterator[GatewayProcess]:
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway"),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TRITON_URL": triton.url, "GATEWAY_PORT": str(port), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    gateway = GatewayProcess(process, port)
    try:
        await asyncio.wait_for(gateway.wait_ready(), 60)
        yield gateway
    finally:
        await gateway.client.aclose()
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_drain_refuses_new_requests_and_finishes_running_ones(triton: FakeTriton) -> None:
    gate = asyncio.Event()
    triton.default = wait_for(gate)
    async with _gateway_process(triton) as gateway:
        running = asyncio.create_task(gateway.client.post("/predict", json={"prompt": ["a", "b"]}))
        await triton.wait_for_calls(1)
        gateway.signal()
        refused = await gateway.wait_draining()
        assert (refused.status_code, error_of(refused)["type"]) == (503, "shutting_down")
        assert int(refused.headers["retry-after"]) > 0
        assert (await gateway.client.get("/")).status_code == 503
        assert (await gateway.client.get("/health/live")).status_code == 200
        assert not running.done()
        gate.set()
        answer = await running
        assert (answer.status_code, answer.json()) == (200, {"response": ["a", "b"]})
        assert await gateway.exit_code() == 0


async def test_after_the_grace_running_requests_get_503(triton: FakeTriton) -> None:
    triton.default = hang()
    async with _gateway_process(triton, SHUTDOWN_GRACE_S="0.5") as gateway:
        running = asyncio.create_task(gateway.client.post("/predict", json={"prompt": "a"}))
        await triton.wait_for_calls(1)
        gateway.signal()
        answer = await running
        assert (answer.status_code, error_of(answer)["type"]) == (503, "shutting_down")
        assert await gateway.exit_code() == 0
        await asyncio.wait_for(triton.calls[0].ended.wait(), 2)


async def test_a_second_signal_ends_at_once(triton: FakeTriton) -> None:
    triton.default = hang()
    async with _gateway_process(triton, SHUTDOWN_GRACE_S="600") as gateway:
        running = asyncio.create_task(gateway.client.post("/predict", json={"prompt": "a"}))
        await triton.wait_for_calls(1)
        gateway.signal()
        assert (await gateway.wait_draining()).status_code == 503
        gateway.signal()
        answer = await running
        assert (answer.status_code, error_of(answer)["type"]) == (503, "shutting_down")
        assert await gateway.exit_code() == 0


async def test_idle_it_exits_quickly(triton: FakeTriton) -> None:
    async with _gateway_process(triton, SHUTDOWN_GRACE_S="600", LOG_FORMAT="json") as gateway:
        gateway.signal()
        assert await gateway.exit_code() == 0


@pytest.mark.parametrize("arguments,code", [([], 1), (["--what"], 2)])
async def test_what_prevents_a_start_is_one_line(triton: FakeTriton, arguments: list[str], code: int) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway", *arguments),
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "GATEWAY_PORT": str(port), "TRITON_URL": triton.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code
    assert output == b""
    assert len(errors.splitlines()) == 1
    assert errors.startswith(b"usage" if arguments else f"GATEWAY_PORT={port}: ".encode())
