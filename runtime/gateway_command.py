"""How the gateway is started: where it finds Triton, and one thing that every program under supervisord gets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from runtime.ports import host_port
from runtime.processes import end_with_parent
from runtime.settings import RuntimeSettings


def gateway_variables(settings: RuntimeSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The gateway asks this service's Triton, wherever that listens, unless TRITON_URL names others."""
    named = environ.get("TRITON_URL", "").strip()
    return {} if named else {"TRITON_URL": host_port(*settings.grpc_target)}


def run_gateway() -> NoReturn:
    """Become `python -m gateway`, which drains when supervisord is gone."""
    end_with_parent(signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "gateway"])
