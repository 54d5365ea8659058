"""A client that costs little: it stands beside the server on the same cores, and is not what is to be measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from benchmarks.errors import PeerFailed
from benchmarks.turns import take_turns

_OPENED_AT_ONCE = 128


@dataclass(frozen=True)
class Address:
    """Where to send to."""

    host: str
    port: int

    @staticmethod
    def of(url: str) -> Address:
        parts = urlsplit(url)
        return Address(parts.hostname or "127.0.0.1", parts.port or 80)


def request(address: Address, path: str, body: Any) -> bytes:
    """A POST with JSON, ready to be written to a connection that is kept."""
    content = json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {address.host}:{address.port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class Connection:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(address: Address) -> Connection:
        return Connection(*await asyncio.open_connection(address.host, address.port, limit=1 << 26))

    async def ask(self, message: bytes) -> bytes:
        """Send, and return the body. Raises :class:`PeerFailed` for any status but 200."""
        self._writer.write(message)
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        length = fields.get(b"content-length")
        body = await (self._chunks() if length is None else self._reader.readexactly(int(length)))
        if b" 200 " not in head[:16]:
            raise PeerFailed(f"answered {head[:64]!r} {body[:200]!r}")
        return body

    async def _chunks(self) -> bytes:
        """A body in chunks, as Triton sends it."""
        parts = []
        while length := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(length))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(parts)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def ask_all(address: Address, messages: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Send all messages over ``clients`` connections, each its next one when the last is answered.

    Returns:
        Seconds for all, and for each.
    """
    connections: list[Connection] = []
    while len(connections) < clients:  # a server's queue of new connections is short
        some = min(_OPENED_AT_ONCE, clients - len(connections))
        connections += await asyncio.gather(*(Connection.open(address) for _ in range(some)))
    try:
        told = await take_turns([connection.ask for connection in connections], messages)
        return told["seconds"], told["each"]
    finally:
        await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)


def run_all(url: str, path: str, bodies: Sequence[Any], clients: int) -> tuple[float, list[float]]:
    """:func:`ask_all` from outside an event loop, on uvloop where there is one."""
    address = Address.of(url)
    messages = [request(address, path, body) for body in bodies]
    try:
        import uvloop
    except ImportError:
        return asyncio.run(ask_all(address, messages, clients))
    found: tuple[float, list[float]] = uvloop.run(ask_all(address, messages, clients))
    return found
