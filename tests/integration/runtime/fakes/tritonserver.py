"""A tritonserver that does what the environment says: loads for FAKE_LOAD_S, then listens, or fails with FAKE_FAIL.

It has a child, the "engine". With FAKE_STUBBORN_ENGINE no signal but SIGKILL ends that.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
ENGINE = "import time; time.sleep(600)"


def main() -> None:
    flags = dict(text.split("=", 1) for text in sys.argv[1:])
    print(f"tritonserver {os.getpid()} loads", flush=True)
    time.sleep(float(os.environ.get("FAKE_LOAD_S", "0.1")))
    if os.environ.get("FAKE_FAIL"):
        sys.exit("the model cannot be loaded")
    stubborn = STUBBORN if os.environ.get("FAKE_STUBBORN_ENGINE") else ""
    engine = subprocess.Popen([sys.executable, "-c", stubborn + ENGINE])
    print(f"engine {engine.pid}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server((flags["--grpc-address"], int(flags["--grpc-port"]))) as server:
        print("tritonserver listens", flush=True)
        while True:
            server.accept()[0].close()


main()
