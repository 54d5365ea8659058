from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from runtime import ports
from runtime.ports import Listener, host_port, port_holder


def problem(address: str, port: int, proc: Path = Path("/proc")) -> str | None:
    return Listener(address, port, "SOME_PORT", "SOME_ADDRESS").problem(proc)


@pytest.mark.parametrize(
    "held,wanted", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")]
)
def test_a_taken_port_is_told_with_its_holder(held: str, wanted: str) -> None:
    with socket.create_server((held, 0)) as server:
        port = server.getsockname()[1]
        told = problem(wanted, port)
    assert told is not None
    assert told.startswith(f"port {port} is taken by ")
    assert told.endswith(f"(pid {os.getpid()}); SOME_PORT names another")
    assert problem(wanted, port) is None, "free again"


def test_a_connection_that_has_just_ended_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side waits in TIME_WAIT
        client.close()
    assert problem("127.0.0.1", port) is None


def test_where_proc_does_not_tell_the_port_is_enough(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_holder(port, tmp_path) == ""
        assert problem("127.0.0.1", port, tmp_path) == f"port {port} is taken; SOME_PORT names another"


def test_ipv6_has_brackets_before_a_port() -> None:
    assert host_port("10.0.0.5", 8001) == "10.0.0.5:8001"
    assert host_port("::1", 8001) == "[::1]:8001"
    assert "listen on [2001:db8::7]:8001: " in str(problem("2001:db8::7", 8001))


def test_an_address_that_is_not_of_this_machine_is_to_be_changed_not_the_port() -> None:
    reason = f"cannot listen on 203.0.113.7:8001: {os.strerror(errno.EADDRNOTAVAIL)}"
    assert problem("203.0.113.7", 8001) == f"{reason}; SOME_ADDRESS names another"
    assert Listener("203.0.113.7", 8001, "SOME_PORT", None).problem() == reason


def test_a_port_that_this_user_may_not_have_is_to_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_listening_error", lambda address, port: PermissionError(errno.EACCES, "not for you"))
    assert problem("127.0.0.1", 80) == "cannot listen on 127.0.0.1:80: not for you; SOME_PORT names another"
