"""A small HTTP service in this process that behaves like the real one to an evaluator, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Reply = tuple[int, Any]


@dataclass
class FakeService:
    """``answer`` maps a question to its answer; ``reply`` may take over the whole reply to ``/predict``."""

    answer: Callable[[str], str]
    status: str = "ok"
    unready: int = 0  # health checks that are answered 503 first
    reply: Callable[[Any], Reply] | None = None
    held: threading.Event | None = None  # /predict waits for it
    requests: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    barrier: threading.Barrier | None = None  # /predict waits until so many requests are there
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FakeService:
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign] # clients that leave
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self.held:
            self.held.set()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def predict(self, body: dict[str, Any]) -> Reply:
        with self._lock:
            self.requests.append(body)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.barrier:
                self.barrier.wait(timeout=30)
            if self.held:
                self.held.wait(timeout=60)
            if self.reply:
                return self.reply(body["prompt"])
            prompt = body["prompt"]
            return 200, {"response": self.answer(prompt) if isinstance(prompt, str) else [*map(self.answer, prompt)]}
        finally:
            with self._lock:
                self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    service: FakeService
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/info":
            self._send(200, {"model": "fake-model"})
        elif self.service.unready > 0:
            self.service.unready -= 1
            self._send(503, {"status": "warming"})
        else:
            self._send(200, {"status": self.service.status})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(*self.service.predict(body))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        pass

    def _send(self, status: int, value: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
