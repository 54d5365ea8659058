"""Put the embedded Triton together while the image is built, where it is needed: whoever runs it cannot write there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file

from runtime.errors import StartError
from runtime.interpreter import Interpreter
from runtime.settings import RuntimeSettings
from runtime.triton_runtime import obtain


def main() -> int:
    """Find or assemble Triton for the Python that runs this."""
    try:
        triton = obtain(RuntimeSettings.from_env(os.environ), os.environ, Interpreter.running())
    except StartError as exc:
        print(f"image: {exc}", file=sys.stderr)
        return 1
    print(f"image: Triton {triton.version} in {triton.server.parent.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
