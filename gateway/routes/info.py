"""``GET /info``: model, backend, engines, versions, effective settings. Only what an allow-list names is shown."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from gateway.prediction import Predictor
from gateway.settings import GatewaySettings
from gateway.triton.upstreams import Upstreams
from gateway.version import VERSION

_PACKAGES = ("fastapi", "uvicorn", "grpcio", "tritonclient")
# What the model tells of itself; a field it adds later is not shown until somebody decides that it may be.
_MODEL_FIELDS = (
    "model",
    "backend",
    "backend_version",
    "backend_reason",
    "dtype",
    "max_model_len",
    "notes",
    "adapters",
    "engines",
    "versions",
    "settings",
)
_GROUPS = ("budget", "sampling", "answer", "limits")
_SINGLE_SETTINGS = ("batch_mode", "log_format", "log_level")


def info_routes(settings: GatewaySettings, upstreams: Upstreams, predictor: Predictor) -> APIRouter:
    """The route. While no model answers, its fields are ``null``."""
    router = APIRouter()
    shown, versions = shown_settings(settings), _package_versions()

    @router.get("/info")
    async def info() -> Response:
        """What is served, by what, and with which settings."""
        model: Mapping[str, Any] = await upstreams.info() or {"model": settings.served_model_name}
        gateway = {
            "prompts_in_flight": predictor.admission.prompts_in_flight,
            "versions": versions,
            "settings": shown,
        }
        body = {"status": upstreams.state, **{name: model.get(name) for name in _MODEL_FIELDS}, "gateway": gateway}
        return Response(orjson.dumps(body), media_type="application/json")

    return router


def shown_settings(settings: GatewaySettings) -> dict[str, Any]:
    """The settings anybody may see: no secret, no address, no text of a prompt."""
    shown = {name: getattr(settings, name) for name in _SINGLE_SETTINGS}
    return shown | {group: dataclasses.asdict(getattr(settings, group)) for group in _GROUPS}


def _package_versions() -> dict[str, str]:
    return {"service": VERSION, "python": platform.python_version()} | {
        name: metadata.version(name) for name in _PACKAGES
    }
