"""Tells an address that the search has ended. The address may hold a secret: it is never shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx

from tools.console import say
from tools.errors import UsageError


def check(url: str | None) -> None:
    """Refuse what is no address. Raises :class:`UsageError`."""
    if url is not None and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
        raise UsageError("--webhook: must be an http or https address")


def notify(url: str | None, message: dict[str, Any]) -> None:
    """Send a message; one that cannot be delivered is a line on standard error, and no error."""
    if url is None:
        return
    try:
        status = httpx.post(url, json=message, timeout=10).status_code
        problem = "" if status < 400 else f"status {status}"
    except httpx.HTTPError as exc:
        problem = type(exc).__name__
    if problem:
        say(f"the webhook could not be told: {problem}")
