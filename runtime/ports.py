"""Addresses and TCP ports: how they are written, and whether one is free; if not, who has it."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"  # as /proc/net/tcp writes the state


def bracketed(address: str) -> str:
    """An IP address as it stands before a colon and a port: IPv6 has colons of its own."""
    return f"[{address}]" if ":" in address else address


def host_port(address: str, port: int) -> str:
    """``10.0.0.5:8001``, ``[::1]:8001``."""
    return f"{bracketed(address)}:{port}"


@dataclass(frozen=True)
class Listener:
    """Where a server is to listen, and the variables that say so."""

    address: str
    port: int
    port_variable: str
    address_variable: str | None
    """None: it listens on all addresses."""

    def problem(self, proc: Path = Path("/proc")) -> str | None:
        """Why the server cannot listen there and what to change, or None if it can."""
        error = _listening_error(self.address, self.port)
        if error is None:
            return None
        if error.errno == errno.EADDRINUSE:
            return f"port {self.port} is taken{port_holder(self.port, proc)}; {self.port_variable} names another"
        at_fault = self.port_variable if error.errno == errno.EACCES else self.address_variable
        hint = f"; {at_fault} names another" if at_fault else ""
        return f"cannot listen on {host_port(self.address, self.port)}: {error.strerror or error}{hint}"


def _listening_error(address: str, port: int) -> OSError | None:
    try:
        family, _, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the servers do: a connection that has just ended does not keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except OSError as exc:
        return exc
    return None


def port_holder(port: int, proc: Path = Path("/proc")) -> str:
    """Who listens, such as `` by nginx (pid 812)``; empty where /proc does not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port, proc)}
    for process in proc.glob("[0-9]*"):
        if _opened_by(process) & sockets:
            return f" by {_name_of(process)} (pid {process.name})"
    return ""


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _opened_by(process: Path) -> set[str]:
    opened = set()
    with contextlib.suppress(OSError):  # another user's, or it has just ended
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed in the meantime
                opened.add(str(descriptor.readlink()))
    return opened


def _name_of(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
