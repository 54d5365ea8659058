"""How the gateway is started: as it is, but for one thing that every program under supervisord gets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from runtime.processes import end_with_parent
from runtime.settings import gateway_python


def run_gateway(environ: Mapping[str, str]) -> NoReturn:
    """Become `python -m gateway`, which drains when supervisord is gone."""
    python = str(gateway_python(environ) or sys.executable)
    end_with_parent(signal.SIGTERM)
    os.execve(python, [python, "-m", "gateway"], dict(environ))
