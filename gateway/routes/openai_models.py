"""``GET /v1/models``: the one model that is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.openai.service import OpenAIService
from gateway.routes.openai_common import json_response
from gateway.schemas import OpenAIErrorResponse
from gateway.triton.upstreams import Upstreams

_ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": OpenAIErrorResponse} for status in (401, 404)}


def model_routes(service: OpenAIService, upstreams: Upstreams) -> APIRouter:
    """The routes; they answer whether or not the model is ready."""
    router = APIRouter()

    async def shown() -> dict[str, Any]:
        length = (await upstreams.properties()).get("max_model_len")
        model = {"id": service.model_name, "object": "model", "created": service.created, "owned_by": "local"}
        return model if length is None else {**model, "max_model_len": length}

    @router.get("/v1/models", responses=_ERRORS)
    async def models() -> Response:
        """The served model, in a list."""
        return json_response({"object": "list", "data": [await shown()]})

    # Names of models may have slashes.
    @router.get("/v1/models/{name:path}", responses=_ERRORS)
    async def model(name: str) -> Response:
        """The served model, by its name."""
        service.check_model(name)
        return json_response(await shown())

    return router
