"""``python -m gateway`` serves; ``python -m gateway --check`` only validates the environment."""

from __future__ import annotations

import gc
import os
import socket
import sys

from gateway.environment import SettingsError
from gateway.settings import GatewaySettings

_USAGE_ERROR = 2
# Net new objects before the youngest are looked through, and how many such rounds before older ones are. Python's own
# values look through everything every few thousand requests: half a second with two thousand of them in hand.
_GC_THRESHOLDS = (10_000, 20, 100)
_ANY_ADDRESS = "0.0.0.0"


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 after a drain, 1 if the port is taken, 2 for a bad setting."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m gateway [--check]", file=sys.stderr)
        return _USAGE_ERROR
    try:
        settings = GatewaySettings.from_env(os.environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return _USAGE_ERROR
    return 0 if arguments else _serve(settings)


def _serve(settings: GatewaySettings) -> int:
    # Imported late: --check must answer at once.
    from gateway.app import create_app
    from gateway.logs import configure_logging
    from gateway.middleware.draining import Drain
    from gateway.server import GatewayServer, server_config

    configure_logging(settings.log_level, settings.log_format)
    try:
        listener = socket.create_server((_ANY_ADDRESS, settings.port))
    except OSError as exc:
        print(f"GATEWAY_PORT={settings.port}: a free port is needed ({exc.strerror})", file=sys.stderr)
        return 1
    drain = Drain()
    server = GatewayServer(server_config(create_app(settings, drain)), drain, settings.limits.shutdown_grace_s)
    gc.freeze()  # what was made by now stays for good
    gc.set_threshold(*_GC_THRESHOLDS)
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
