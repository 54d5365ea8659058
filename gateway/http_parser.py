"""httptools' parser of requests, for a server that speaks HTTP/1.1 and nothing else."""

from __future__ import annotations

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class RequestParser(HttpRequestParser):
    """Reads requests that ask for another protocol as if they did not, which RFC 9110, section 7.8, allows.

    httptools takes the body of a request with ``Upgrade`` for bytes of the other protocol. So such a head is read
    twice: as it came, where ``is_to_be_read_again`` tells the protocol to wait, and then without ``Upgrade``.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._start()

    def _start(self) -> None:
        super().__init__(self._protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it

    def feed_data(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        rest = self._feed(memoryview(data))
        while rest:
            rest = self._feed(rest)

    def _feed(self, data: memoryview) -> memoryview:
        """Read ``data``, up to the end of a head that asks for another protocol; returns what is left."""
        try:
            super().feed_data(data)
        except HttpParserUpgrade as upgrade:
            if not self.is_to_be_read_again():
                raise
            head = self._head_without_upgrade()
            self._start()  # as the old state may be that of a connection which ends with this request
            super().feed_data(head)
            return data[upgrade.args[0] :]
        return data[:0]

    def is_to_be_read_again(self) -> bool:
        """Once a head is complete: whether it asks for another protocol. CONNECT does so without ``Upgrade``."""
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        version = self.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.get_method(), self._protocol.url, version)]
        lines += [b"%s: %s" % header for header in self._protocol.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"
