"""How the benchmarks see that a peer is up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks.peers import _answers, free_ports


class Up(BaseHTTPRequestHandler):
    """A peer that is up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Up) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_a_peer_is_up_when_it_answers(peer: str) -> None:
    assert _answers(peer)
    assert not _answers("http://127.0.0.1:9/")  # nobody listens there


def test_a_proxy_of_the_environment_is_not_asked(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert _answers(peer)


def test_a_peer_gets_different_ports() -> None:
    ports = free_ports(200)  # with one at a time the system soon gives one of them again
    assert len(set(ports)) == len(ports)
