from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runtime.readiness import Readiness, State, gateway_state, ready_line
from runtime.settings import RuntimeSettings

SETTINGS = RuntimeSettings.from_env({"GATEWAY_PORT": "9000", "TRITON_GRPC_PORT": "9001", "TRITON_METRICS_PORT": "9002"})


class Gateway(ThreadingHTTPServer):
    """Answers every request with `status`."""

    status = 503
    daemon_threads = True


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = Gateway(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_gateways_state(gateway: Gateway) -> None:
    port = gateway.server_address[1]
    assert gateway_state(port) == "warming"
    gateway.status = 200
    assert gateway_state(port) == "ready"
    assert gateway_state(1) == "absent"


def test_it_tells_what_is_awaited_and_then_that_it_is_ready() -> None:
    states: Iterator[State] = iter(["absent", "warming", "ready"])
    said: list[str] = []
    done = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "ready" in line:
            done.set()

    readiness = Readiness(SETTINGS, say, tell_every_s=0, state=lambda port: next(states))
    readiness.start()
    assert done.wait(10)
    readiness.stop()
    assert [line.split(",")[1] for line in said[:2]] == [" waiting for the gateway", " the gateway is up"]
    assert len(said) == 3


def test_it_can_be_stopped_while_it_waits() -> None:
    readiness = Readiness(SETTINGS, lambda line: None, state=lambda port: "absent")
    readiness.start()
    readiness.stop()  # returns


def test_the_ready_line_has_the_addresses_that_were_chosen() -> None:
    names = ("TRITON_GRPC_ADDRESS", "TRITON_METRICS_ADDRESS", "WEBUI_ADDRESS")
    line = ready_line(RuntimeSettings.from_env({"WEBUI": "1", **dict.fromkeys(names, "10.0.0.5")}), 1.0)
    for part in ("gRPC 10.0.0.5:8001,", "http://10.0.0.5:8002/metrics,", "web page http://10.0.0.5:7860;"):
        assert part in line
    line = ready_line(RuntimeSettings.from_env({"WEBUI": "1", **dict.fromkeys(names, "::")}), 1.0)
    for part in ("gRPC [::1]:8001,", "http://[::1]:8002/metrics,", "web page http://[::1]:7860;"):
        assert part in line


def test_the_ready_line_is_one_line_with_everything_to_try() -> None:
    line = ready_line(SETTINGS, 41.3)
    assert "\n" not in line
    for part in ("41 s", "http://127.0.0.1:9000/docs", "127.0.0.1:9001", "http://127.0.0.1:9002/metrics"):
        assert part in line
    command = line.partition("try: ")[2]
    assert command.startswith("curl -s http://127.0.0.1:9000/predict ")
    assert '{"prompt": ' in command
