"""Asks for a service's health until its standard input ends; prints the seconds that each answer took, as JSON.

    health_poller.py PORT

A process of its own: a crowd of clients in the same one would be measured too.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time


def main(port: int) -> None:
    ends = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    waits = []
    while not ends.wait(0.01):
        started = time.monotonic()
        connection.request("GET", "/")
        reply = connection.getresponse()
        reply.read()
        waits.append(time.monotonic() - started)
        assert reply.status == 200, reply.status
    print(json.dumps(waits))


if __name__ == "__main__":
    main(int(sys.argv[1]))
