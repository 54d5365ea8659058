"""Watches the start: now and then a line saying what is awaited, and one line when the first request can be sent."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from typing import Literal

from runtime.ports import host_port
from runtime.settings import LOOPBACK, RuntimeSettings, reached_at

PROBE_EVERY_S = 0.5
TELL_EVERY_S = 10.0

State = Literal["absent", "warming", "ready"]
_AWAITED = {"absent": "waiting for the gateway", "warming": "the gateway is up, the model is loading"}


def gateway_state(port: int) -> State:
    """What `GET /` says. The gateway answers within 50 ms, or it is not there yet."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "absent"
    finally:
        connection.close()
    return "ready" if status == 200 else "warming"


class Readiness:
    """A thread that asks the gateway until it is ready, once in the life of a service."""

    def __init__(
        self,
        settings: RuntimeSettings,
        say: Callable[[str], None],
        tell_every_s: float = TELL_EVERY_S,
        state: Callable[[int], State] = gateway_state,
    ) -> None:
        self._settings = settings
        self._say = say
        self._tell_every_s = tell_every_s
        self._state = state
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """No more lines after this."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = told = time.monotonic()
        while not self._stop.is_set():
            state = self._state(self._settings.gateway_port)
            now = time.monotonic()
            if state == "ready":
                self._say(ready_line(self._settings, now - begun))
                return
            if now - told >= self._tell_every_s:
                told = now
                self._say(f"starting: {now - begun:.0f} s, {_AWAITED[state]}")
            self._stop.wait(PROBE_EVERY_S)


def ready_line(settings: RuntimeSettings, seconds: float) -> str:
    """The line people wait for: the addresses and a command to try."""
    url = f"http://{LOOPBACK}:{settings.gateway_port}"
    grpc = host_port(*settings.grpc_target)
    metrics = _url(settings.triton_metrics_address, settings.triton_metrics_port)
    page = f", web page {_url(settings.web_page_address, settings.web_page_port)}" if settings.web_page else ""
    return (
        f"ready after {seconds:.0f} s: {url} (documentation {url}/docs), Triton gRPC {grpc}, "
        f"metrics {metrics}/metrics{page}; "
        f"try: curl -s {url}/predict -H 'Content-Type: application/json' -d '{{\"prompt\": \"What is a GPU?\"}}'"
    )


def _url(address: str, port: int) -> str:
    return f"http://{host_port(reached_at(address), port)}"
