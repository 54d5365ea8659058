"""Stands for the service's interpreter: `launcher.py -m runtime serve` serves a small fake, by the settings it gets.

SPEED   seconds per request; higher is slower
GOOD    0: wrong answers
FAULT   exit: ends at once; unready: never gets ready; silent: never answers a question;
        stubborn: ignores SIGTERM, and has a child in another session
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FAULT = os.environ.get("FAULT", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(503 if FAULT == "unready" else 200, {"status": "batch"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if FAULT == "silent":
            time.sleep(3600)
        time.sleep(float(os.environ.get("SPEED", "0")))
        good = os.environ.get("GOOD", "1") == "1"
        self._send(200, {"response": [f"答案 {prompt}" if good else "不知道" for prompt in body["prompt"]]})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        pass

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    if started := os.environ.get("STARTED"):
        with Path(started).open("a") as notes:
            notes.write(f"{os.getpid()}\n")
    if FAULT == "exit":
        sys.exit("cannot start: FAULT is exit")
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        Path(os.environ["CHILD"]).write_text(str(child.pid))
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["GATEWAY_PORT"])), Handler).serve_forever()
