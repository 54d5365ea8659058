from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runtime.ports import port_holder, port_problem


@pytest.mark.parametrize(
    "held,wanted", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")]
)
def test_a_taken_port_is_told_with_its_holder(held: str, wanted: str) -> None:
    with socket.create_server((held, 0)) as server:
        port = server.getsockname()[1]
        problem = port_problem(wanted, port)
    assert problem is not None
    assert problem.startswith(f"port {port} is taken by ")
    assert f"(pid {os.getpid()})" in problem
    assert port_problem(wanted, port) is None, "free again"


def test_a_connection_that_has_just_ended_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side waits in TIME_WAIT
        client.close()
    assert port_problem("127.0.0.1", port) is None


def test_where_proc_does_not_tell_the_port_is_enough(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_holder(port, tmp_path) == ""
        assert port_problem("127.0.0.1", port, tmp_path) == f"port {port} is taken"


def test_an_address_that_is_not_of_this_machine() -> None:
    assert "203.0.113.7" in str(port_problem("203.0.113.7", 8001))
