"""The watchdog's looks at a server that speaks Triton's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc  # type: ignore[import-untyped]
import pytest

from runtime.triton_probe import Sign, TritonProbe
from tests.fakes.triton_server import FakeTriton, hang, refuse
from tests.ipv6 import needs_ipv6

READY = {"engines": [{"state": "ready", "seconds_since_step": 0.5}]}


@contextlib.contextmanager
def running(server: FakeTriton) -> Iterator[FakeTriton]:
    """The server on an event loop of its own: the probe blocks its caller's thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with running(FakeTriton()) as server:
        yield server


def look(triton: FakeTriton, probe_s: float = 10.0, status_s: float = 10.0) -> Sign:
    triton.probe = triton.default  # the watchdog's requests have an id of their own
    return TritonProbe(("127.0.0.1", triton.port), probe_s, status_s).look()


def test_a_model_that_generates(triton: FakeTriton) -> None:
    assert look(triton).state == "answers"
    (call,) = triton.calls
    assert call.sampling_parameters == [{"max_tokens": 1, "temperature": 0.0}]
    assert "triton_grpc_error" not in call.metadata


@needs_ipv6
def test_a_model_at_an_ipv6_address() -> None:
    with running(FakeTriton(host="[::1]")) as triton:
        assert TritonProbe(("::1", triton.port), 10.0, 10.0).look().state == "answers"


def test_a_model_that_finds_fault_with_the_probe_is_alive(triton: FakeTriton) -> None:
    triton.default = refuse(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARG: no chat template")
    assert look(triton).state == "answers"


def test_a_probe_that_waits_while_engines_work(triton: FakeTriton) -> None:
    triton.default, triton.info = hang(), READY
    assert look(triton, probe_s=0.3) == Sign("busy", 0.5)


def test_a_refused_probe_while_an_engine_starts(triton: FakeTriton) -> None:
    triton.default = refuse(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE: no engine is alive")
    triton.info = {"engines": [{"state": "starting", "seconds_since_step": None}]}
    assert look(triton).state == "starting"


def test_a_model_that_says_nothing_at_all(triton: FakeTriton) -> None:
    triton.default, triton.answers_info = hang(), False
    assert look(triton, probe_s=0.3, status_s=0.3).state == "silent"


def test_a_triton_that_refuses_the_status_is_dead_though_it_holds_the_probe(triton: FakeTriton) -> None:
    triton.default, triton.refuses_info = hang(), True
    assert look(triton, probe_s=60).state == "dead"
    (call,) = triton.calls
    assert call.time_remaining_s > 50


def test_a_status_that_cannot_be_read(triton: FakeTriton) -> None:
    triton.default, triton.info = hang(), []  # type: ignore[assignment]
    assert look(triton, probe_s=0.3).state == "silent"


def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert TritonProbe(("127.0.0.1", port), 1.0).look().state == "absent"


def test_a_server_that_knows_neither_request() -> None:
    """As a Triton whose model has lost its process refuses both, this one does."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert TritonProbe(("127.0.0.1", port), 5.0, 5.0).look().state == "dead"
    finally:
        server.stop(None).wait(10)
