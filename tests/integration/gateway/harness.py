"""The real application under uvicorn on a free port, in this process, in front of a fake Triton."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.app import create_app
from gateway.middleware.body_limit import BODY_TIMEOUT_S
from gateway.middleware.draining import Drain
from gateway.readiness import ProbeTimes
from gateway.server import GatewayServer, server_config
from gateway.settings import GatewaySettings
from tests.fakes.triton_server import FakeTriton
from tests.unit.gateway.waiting import until, until_async

QUICK_PROBES = ProbeTimes(
    interval_s=0.1, look_s=0.2, patience_s=1.0, busy_stall_s=1.0, first_retry_s=0.02, last_retry_s=0.05
)


class ServerWithoutSignals(GatewayServer):
    """Leaves the signals of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """A running gateway, and a client for it."""

    def __init__(self, port: int, server: GatewayServer) -> None:
        self.port = port
        self.server = server
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)

    async def predict(self, prompt: Any, **fields: Any) -> httpx.Response:
        return await self.client.post("/predict", json={"prompt": prompt, **fields})

    async def post(self, body: bytes, **headers: str) -> httpx.Response:
        """POST raw bytes to /predict."""
        return await self.client.post("/predict", content=body, headers=headers)

    async def prompts_in_flight(self) -> int:
        count: int = (await self.client.get("/info")).json()["gateway"]["prompts_in_flight"]
        return count

    async def wait_ready(self) -> None:
        await until_async(self.is_ready)

    async def is_ready(self) -> bool:
        return (await self.client.get("/health/ready")).status_code == 200

    async def raw(self, data: bytes, *, end: bool = False) -> bytes:
        """Send bytes over a socket of its own, ``end`` the sending side, and return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if end:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()


@asynccontextmanager
async def running_gateway(
    *tritons: FakeTriton,
    probe_times: ProbeTimes = QUICK_PROBES,
    body_timeout_s: float = BODY_TIMEOUT_S,
    wait: bool = True,
    **environ: str,
) -> AsyncIterator[Gateway]:
    """A gateway in front of ``tritons``, ready unless ``wait`` is false; ``environ`` are its variables."""
    settings = GatewaySettings.from_env({"TRITON_URL": ",".join(triton.url for triton in tritons), **environ})
    drain = Drain()
    config = server_config(create_app(settings, drain, probe_times, body_timeout_s))
    server = ServerWithoutSignals(config, drain, settings.limits.shutdown_grace_s)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listener]))
    await until(lambda: server.started or serving.done())
    gateway = Gateway(listener.getsockname()[1], server)
    try:
        if wait:
            await gateway.wait_ready()
        yield gateway
    finally:
        await gateway.client.aclose()
        server.should_exit = True
        await asyncio.wait_for(serving, 15)


@asynccontextmanager
async def running_triton() -> AsyncIterator[FakeTriton]:
    """A fake Triton on a free port."""
    triton = FakeTriton()
    await triton.start()
    try:
        yield triton
    finally:
        await triton.stop()


def error_of(response: httpx.Response) -> dict[str, str]:
    """The error object of an answer, which must have the documented form."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"type", "message", "request_id"}
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    assert "/" not in body["error"]["message"]
    error: dict[str, str] = body["error"]
    return error
