"""An `nvidia-cuda-mps-control` that stays until SIGTERM, as with `-f`: first it says who it is and leaves its file."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> None:
    if sys.argv[1:] != ["-f"]:
        sys.exit(f"in the background, nobody would look after it: {sys.argv[1:]}")
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"):
        Path(os.environ[name], "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()))
    print(f"mps {os.getpid()}", flush=True)
    while True:
        signal.pause()


main()
