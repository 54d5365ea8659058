"""The HTTP server: uvicorn with signals of our own, as its own would close the socket before the last answer."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from gateway.http_protocol import GatewayHttpProtocol
from gateway.middleware.draining import Drain

logger = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75  # longer than clients and proxies keep idle connections, so that they and not we close them
_ABORT_S = 5  # for the error answers of requests that were ended


def server_config(app: FastAPI) -> uvicorn.Config:
    """One worker on uvloop and httptools; access log and server banner are ours or nobody's."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=GatewayHttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_ABORT_S,
    )


class GatewayServer(uvicorn.Server):
    """On the first SIGTERM or SIGINT it drains and ends; on a second one it ends at once. Exit code 0 both times.

    Draining: new requests get 503 on the still open socket, running ones have ``grace_s`` to finish and then get 503.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, grace_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._grace_s = grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Python calls this between any two instructions: hand it to the event loop."""
        if self._loop is None or not self.started:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.begin_shutdown)

    def begin_shutdown(self) -> None:
        """Drain; called again, end the running requests at once."""
        if self._draining is None:
            logger.info("draining: new requests are refused, running ones have %g s", self._grace_s)
            self._draining = asyncio.create_task(self._drain_and_exit())
        else:
            logger.info("ending at once")
            self._drain.abort()

    async def _drain_and_exit(self) -> None:
        self._drain.begin()
        if not await self._drain.wait_idle(self._grace_s):
            logger.warning("ending the requests that still run")
            self._drain.abort()
            await self._drain.wait_idle(_ABORT_S)
        self.should_exit = True
