"""Health: the evaluator's ``GET /``, and live and ready for everybody else. None of them waits for anything."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.errors import NotReady
from gateway.middleware.direct import Endpoint
from gateway.triton.upstreams import Upstreams

PATH = "/"
_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "The model is warming up or recovering"}}


def health_endpoint(upstreams: Upstreams, *, batch_mode: bool) -> Endpoint:
    """The endpoint of ``GET /``, answering from the state that the probes keep."""
    ready_word = "batch" if batch_mode else "ok"

    async def health(request: Request) -> Response:
        """Whether the service answers questions: `ok` (or `batch`), `warming`, `recovering`."""
        return _status(upstreams, ready_word)

    return health


def health_routes(upstreams: Upstreams, health: Endpoint) -> APIRouter:
    """The three routes; ``health`` is the endpoint of the first."""
    router = APIRouter()
    router.get(PATH, responses=_NOT_READY)(health)

    @router.get("/health/live")
    async def live() -> Response:
        """The process is up."""
        return _json(200, "live")

    @router.get("/health/ready", responses=_NOT_READY)
    async def ready() -> Response:
        """The model has answered lately: `ready`, else `warming`, `recovering`, or `dead` if it needs a restart."""
        return _json(503, "dead") if upstreams.is_dead else _status(upstreams, "ready")

    return router


def _status(upstreams: Upstreams, ready_word: str) -> Response:
    state = upstreams.state
    return _json(200, ready_word) if state == "ready" else _json(503, state)


def _json(status: int, word: str) -> Response:
    headers = {"Retry-After": str(NotReady.retry_after_s)} if status == NotReady.status else None
    return Response(b'{"status":"%s"}' % word.encode(), status, headers, media_type="application/json")
