"""``GET /metrics`` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from gateway.metrics import Metrics


def metrics_routes(metrics: Metrics) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.get("/metrics", response_class=PlainTextResponse)
    async def exposition() -> Response:
        """The gateway's metrics in Prometheus' text format."""
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    return router
