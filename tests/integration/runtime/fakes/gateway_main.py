"""A gateway with nothing in it but its manners: `--check`, ready when Triton listens, drains on SIGTERM, and a second
one ends it.

`GET /slow?SECONDS` is a request that takes that long.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

draining = threading.Event()
hurried = threading.Event()
running = 0
count = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, argument = self.path.partition("?")
        if path == "/slow":
            self.slow(float(argument))
        else:
            self.answer(200 if triton_listens() and not draining.is_set() else 503)

    def slow(self, seconds: float) -> None:
        global running
        if draining.is_set():
            return self.answer(503)
        with count:
            running += 1
        print("slow request begins", flush=True)
        self.answer(503 if hurried.wait(seconds) else 200)
        with count:
            running -= 1
        return None

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def triton_listens() -> bool:
    host, _, port = os.environ["TRITON_URL"].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def on_sigterm(*_: object) -> None:
    (hurried if draining.is_set() else draining).set()


def main() -> None:
    if "--check" in sys.argv:
        if os.environ.get("FAKE_BAD_GATEWAY"):
            sys.exit("LOG_FORMAT=xml: text or json")
        return
    print(f"gateway {os.getpid()} with model {os.environ.get('MODEL_ID')}", flush=True)
    signal.signal(signal.SIGTERM, on_sigterm)
    server = ThreadingHTTPServer(("0.0.0.0", int(os.environ["GATEWAY_PORT"])), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    draining.wait()
    print("gateway drains", flush=True)
    while running and not hurried.is_set():
        time.sleep(0.02)
    print("gateway ends", flush=True)
    time.sleep(0.1)  # the last answer is on its way
    os._exit(0)


main()
