"""How the gateway is started: as it is, but for one thing that every program under supervisord gets."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from runtime.processes import end_with_parent


def run_gateway() -> NoReturn:
    """Become `python -m gateway`, which drains when supervisord is gone."""
    end_with_parent(signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "gateway"])
