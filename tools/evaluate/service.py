"""The service as the evaluator knows it: the health check, and what ``GET /info`` tells beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tools.errors import ToolError

POLL_S = 0.5
ROOT = Path(__file__).resolve().parent.parent.parent


class NotHealthy(ToolError):
    """The service did not answer its health check in time."""


def wait_healthy(url: str, timeout_s: float, check: Callable[[], None] = lambda: None) -> str:
    """Wait until ``GET /`` answers 200; return its ``status``: ``ok``, or ``batch`` for questions in one request.

    ``check`` is called between two looks and may raise. Raises :class:`NotHealthy` with the last thing that was seen.
    """
    deadline = time.monotonic() + timeout_s
    seen = "nothing"
    # trust_env: a proxy for the way out must not stand before a service on the same machine.
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as client:
        while True:
            try:
                reply = client.get("/")
                if reply.status_code == 200:
                    return _status(reply)
                seen = f"status {reply.status_code}"
            except httpx.TransportError as exc:
                seen = type(exc).__name__
            check()
            if time.monotonic() >= deadline:
                raise NotHealthy(f"{url}/ did not answer 200 within {timeout_s:g} s; last seen: {seen}")
            time.sleep(POLL_S)


def read_info(url: str) -> dict[str, Any]:
    """Return what ``GET /info`` says, or nothing: other servers need not have it."""
    try:
        reply = httpx.get(f"{url}/info", timeout=10, trust_env=False)
        info = reply.json() if reply.status_code == 200 else {}
    except (httpx.TransportError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def model_folder(info: dict[str, Any]) -> Path | None:
    """Return the folder below ``models/`` whose name the service tells, if it is there."""
    name = info.get("model")
    if not isinstance(name, str) or not name or "/" in name:
        return None
    folders = [ROOT / "models" / name, *sorted((ROOT / "models").glob(f"*{name}"))]
    return next((folder for folder in folders if (folder / "tokenizer.json").is_file()), None)


def _status(reply: httpx.Response) -> str:
    try:
        status = reply.json().get("status", "ok")
    except (ValueError, AttributeError):
        return "ok"  # an evaluator only looks at the status code
    return str(status)
