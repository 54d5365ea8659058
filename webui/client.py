"""The gateway's HTTP API as the page uses it. Every failure comes out as a :class:`~webui.errors.WebError`."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from webui.errors import Interrupted, Refused, Unreachable
from webui.settings import WebSettings

Message = Mapping[str, str]

MAX_TOKENS = 4096
"""The greatest length of an answer that can be chosen on the page."""

# An answer may take as long as the gateway allows it (REQUEST_TIMEOUT_S and some); streams have a heartbeat every 10 s.
_ANSWER = httpx.Timeout(400.0, connect=5.0)
_STREAM = httpx.Timeout(60.0, connect=5.0)
_QUICK = httpx.Timeout(10.0, connect=3.0)


@dataclass(frozen=True)
class Piece:
    """A part of a streamed answer: new text, or at the end why it ended and how many tokens it has."""

    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Generation:
    """The parameters of one chat request."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0


class GatewayClient:
    """One gateway. ``transport`` replaces the network, for tests."""

    def __init__(self, settings: WebSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = settings.gateway_url
        self._headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._transport = transport

    async def stream_chat(self, messages: Sequence[Message], wish: Generation) -> AsyncGenerator[Piece, None]:
        """Stream the answer of ``/v1/chat/completions``. Closing the generator ends the generation."""
        body = {
            "messages": [dict(message) for message in messages],
            "max_tokens": wish.max_tokens,
            "temperature": wish.temperature,
            "top_p": wish.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with (
            self._connection(_STREAM) as client,
            client.stream("POST", "/v1/chat/completions", json=body, headers=self._headers) as reply,
        ):
            if reply.status_code != 200:
                await reply.aread()
                raise refusal(reply)
            async for event in _events(reply.aiter_lines()):
                yield _piece(event)

    async def predict(self, prompts: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
        """Ask ``/predict`` for a list: ``response`` in the same order, ``errors`` for those without an answer."""
        return await self._json("POST", "/predict", _ANSWER, json={"prompt": list(prompts), **options})

    async def info(self) -> dict[str, Any]:
        """What is served, and the state of the engines."""
        return await self._json("GET", "/info", _QUICK)

    async def require_ready(self) -> None:
        """Raise :class:`Refused` at once while the model is not ready: a request would wait for it in silence."""
        async with self._connection(_QUICK) as client:
            reply = await client.get("/health/ready")
        if reply.status_code != 200:
            raise Refused(reply.status_code, "not_ready", retry_after_s=retry_after_s(reply))

    async def metrics(self) -> str:
        """The gateway's metrics in Prometheus' text format."""
        async with self._connection(_QUICK) as client:
            return _checked(await client.get("/metrics")).text

    async def system_prompt(self) -> str:
        """The default system prompt of the service."""
        return str((await self._json("GET", "/system_prompt", _QUICK))["system_prompt"])

    async def replace_system_prompt(self, text: str, admin_token: str) -> str:
        """Replace it; returns what holds now."""
        headers = {"Authorization": f"Bearer {admin_token}"}
        body = {"system_prompt": text}
        return str((await self._json("PUT", "/system_prompt", _QUICK, json=body, headers=headers))["system_prompt"])

    async def _json(self, method: str, path: str, timeout: httpx.Timeout, **options: Any) -> dict[str, Any]:
        async with self._connection(timeout) as client:
            reply = _checked(await client.request(method, path, **options))
            fields = reply.json()
        if not isinstance(fields, dict):
            raise Refused(reply.status_code, message="not a JSON object")
        return fields

    @asynccontextmanager
    async def _connection(self, timeout: httpx.Timeout) -> AsyncIterator[httpx.AsyncClient]:
        """A client whose failures are the page's own errors."""
        # trust_env: a proxy for the way out must not stand before a gateway on the same machine.
        client = httpx.AsyncClient(base_url=self.url, timeout=timeout, trust_env=False, transport=self._transport)
        try:
            async with client:
                yield client
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise Unreachable(self.url) from exc
        except (httpx.TransportError, httpx.StreamError) as exc:
            raise Interrupted from exc
        except ValueError as exc:  # what should be JSON is not: some other server
            raise Refused(200, message="not the gateway's JSON") from exc


def refusal(reply: httpx.Response) -> Refused:
    """The gateway's error object as an exception; other bodies are told by their status."""
    try:
        error = reply.json()["error"]
        kind, message = str(error["type"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        kind, message = "", ""
    return Refused(reply.status_code, kind, message, retry_after_s(reply))


def retry_after_s(reply: httpx.Response) -> int | None:
    """The answer's ``Retry-After`` in seconds, if it has one."""
    text = reply.headers.get("retry-after", "")
    return int(text) if text.isdecimal() else None


def _checked(reply: httpx.Response) -> httpx.Response:
    if reply.status_code != 200:
        raise refusal(reply)
    return reply


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each event up to ``[DONE]``; an end without it is an interruption."""
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            error = event["error"]
            raise Refused(502, str(error.get("type", "")), str(error.get("message", "")))
        yield event
    raise Interrupted


def _piece(event: Mapping[str, Any]) -> Piece:
    choice: Mapping[str, Any] = next(iter(event.get("choices") or ()), {})
    usage = event.get("usage") or {}
    return Piece(
        text=(choice.get("delta") or {}).get("content") or "",
        finish_reason=choice.get("finish_reason"),
        completion_tokens=usage.get("completion_tokens"),
    )
