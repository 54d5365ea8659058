"""A gateway for the page's tests: it says what a test has written down, and notes what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

DEFAULT_PROMPT = "You answer questions on parallel programs."
ADMIN_TOKEN = "open-sesame"
WAIT_S = 60.0


@dataclass
class Refusal:
    """An error answer."""

    status: int
    kind: str
    message: str = ""
    retry_after_s: int | None = None

    def reply(self) -> JSONResponse:
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else None
        error = {"type": self.kind, "message": self.message, "request_id": "fake"}
        return JSONResponse({"error": error}, self.status, headers)


@dataclass
class Script:
    """What the gateway does, and what it has seen. A test gets a fresh one."""

    pieces: Sequence[str] = ("A grid ", "of thread ", "blocks.")
    held_after: int | None = None
    """Wait for :attr:`go_on` after so many pieces."""
    go_on: threading.Event = field(default_factory=threading.Event)
    finish_reason: str = "stop"
    breaks: bool = False
    """End the stream with an error event in place of its end."""
    refusal: Refusal | None = None
    state: str = "ready"
    has_admin_token: bool = True
    system_prompt: str = DEFAULT_PROMPT
    answers: dict[str, str] = field(default_factory=dict)
    chats: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    went_away: threading.Event = field(default_factory=threading.Event)
    """A client left in the middle of a stream."""
    prompts: int = 0
    tokens: int = 0


class FakeGateway:
    """The server, in a thread of its own. ``script`` may be replaced at any time."""

    def __init__(self) -> None:
        self.script = Script()
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), port=0, log_level="error", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        """Return once it listens."""
        self._thread.start()
        waited = threading.Event()
        for _ in range(600):
            if self._server.started:
                return
            waited.wait(0.05)
        raise AssertionError("the fake gateway did not start")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self._chat, methods=["POST"], response_model=None)
        app.add_api_route("/predict", self._predict, methods=["POST"], response_model=None)
        app.add_api_route("/health/ready", self._ready, methods=["GET"], response_model=None)
        app.add_api_route("/info", self._info, methods=["GET"], response_model=None)
        app.add_api_route("/metrics", self._metrics, methods=["GET"], response_model=None)
        app.add_api_route("/system_prompt", self._read_prompt, methods=["GET"], response_model=None)
        app.add_api_route("/system_prompt", self._write_prompt, methods=["PUT"], response_model=None)
        return app

    async def _chat(self, request: Request) -> Any:
        script = self.script
        script.chats.append(await request.json())
        script.authorizations.append(request.headers.get("authorization", ""))
        if script.refusal:
            return script.refusal.reply()
        return StreamingResponse(self._events(script), media_type="text/event-stream")

    async def _events(self, script: Script) -> AsyncIterator[str]:
        try:
            for number, piece in enumerate(script.pieces):
                if number == script.held_after:
                    await _until(script.go_on)
                script.tokens += 1
                yield _event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        except asyncio.CancelledError:
            script.went_away.set()
            raise
        if script.breaks:
            yield _event(
                {"error": {"type": "model_failed", "message": "the model fell over", "param": None, "code": None}}
            )
            return
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": script.finish_reason}]})
        yield _event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(script.pieces)}})
        yield "data: [DONE]\n\n"

    async def _predict(self, request: Request) -> Any:
        script, body = self.script, await request.json()
        if script.held_after is not None and len(script.batches) == script.held_after:
            await _until(script.go_on)
        script.batches.append(body)
        if script.refusal:
            return script.refusal.reply()
        answers = [script.answers.get(prompt, f"answer to {prompt}") for prompt in body["prompt"]]
        script.prompts += len(answers)
        empty = [index for index, answer in enumerate(answers) if not answer]
        errors = [{"index": index, "type": "model_failed", "message": "the model failed on it"} for index in empty]
        return {"response": answers, **({"errors": errors} if errors else {})}

    async def _ready(self) -> Any:
        state = self.script.state
        return JSONResponse({"status": state}, 200 if state == "ready" else 503, {"Retry-After": "5"})

    async def _info(self) -> Any:
        engine = {"name": "vllm-0", "state": "ready", "running": 3, "waiting": 4, "seconds_since_step": 0.5}
        model = {"model": "fake-model", "backend": "vllm", "backend_version": "1.2", "max_model_len": 2048}
        gateway = {"prompts_in_flight": 7, "versions": {}, "settings": {}}
        return {"status": self.script.state, **model, "dtype": "float32", "engines": [engine], "gateway": gateway}

    async def _metrics(self) -> Any:
        # Every look finds more: the page must show a rate above zero.
        self.script.tokens += 100
        self.script.prompts += 10
        return PlainTextResponse(
            f"gateway_prompts_total {self.script.prompts}\ngateway_completion_tokens_total {self.script.tokens}\n"
        )

    async def _read_prompt(self) -> Any:
        return {"system_prompt": self.script.system_prompt}

    async def _write_prompt(self, request: Request) -> Any:
        if not self.script.has_admin_token:
            return Refusal(403, "forbidden", "ADMIN_TOKEN is not set").reply()
        if request.headers.get("authorization") != f"Bearer {ADMIN_TOKEN}":
            return Refusal(401, "unauthorized", "another token").reply()
        self.script.system_prompt = (await request.json())["system_prompt"]
        return {"system_prompt": self.script.system_prompt}


def _event(fields: dict[str, Any]) -> str:
    return f"data: {json.dumps(fields)}\n\n"


async def _until(event: threading.Event) -> None:
    """Wait without a thread: a client that leaves cancels this."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not event.is_set():
        assert asyncio.get_running_loop().time() < deadline, "nobody said to go on"
        await asyncio.sleep(0.02)
