"""``/system_prompt``: the default system prompt of ``/predict``, read by anybody, replaced by the administrator."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.errors import Forbidden
from gateway.metrics import Metrics
from gateway.middleware.api_key import check_bearer
from gateway.middleware.context import record_of
from gateway.policy.messages import SystemPrompt
from gateway.schemas import ErrorResponse, SystemPromptBody, body_openapi, parse_body

logger = logging.getLogger(__name__)

_RESPONSES: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in (401, 403, 422)}


def system_prompt_routes(prompt: SystemPrompt, admin_token: str | None, metrics: Metrics) -> APIRouter:
    """The routes. Without ``admin_token`` nobody may write."""
    router = APIRouter()
    described = body_openapi(SystemPromptBody, {"a prompt": {"value": {"system_prompt": "你是课程助教。"}}})

    @router.get("/system_prompt", response_model=SystemPromptBody)
    async def read() -> Response:
        """The default system prompt."""
        return _shown(prompt)

    @router.put("/system_prompt", response_model=SystemPromptBody, responses=_RESPONSES, openapi_extra=described)
    @router.post("/system_prompt", response_model=SystemPromptBody, responses=_RESPONSES, openapi_extra=described)
    async def replace(request: Request) -> Response:
        """Replace the default system prompt for requests that start later, until the gateway ends.

        Needs `Authorization: Bearer` with `ADMIN_TOKEN`. An empty text: no system prompt.
        """
        if admin_token is None:
            raise Forbidden("the system prompt cannot be changed: ADMIN_TOKEN is not set")
        check_bearer(request.headers, admin_token, "admin token")
        prompt.replace(parse_body(await request.body(), SystemPromptBody).system_prompt)
        metrics.system_prompt_changes.inc()
        fields = {"id": record_of(request).request_id, "characters": len(prompt.text)}
        logger.info("the system prompt was replaced", extra={"fields": fields})
        return _shown(prompt)

    return router


def _shown(prompt: SystemPrompt) -> Response:
    return Response(orjson.dumps({"system_prompt": prompt.text}), media_type="application/json")
