"""``python -m webui`` serves the page; ``python -m webui --check`` only validates the environment."""

from __future__ import annotations

import os
import socket
import sys

from webui.settings import SettingsError, WebSettings

_USAGE_ERROR = 2
_STOP_S = 2  # open pages keep a connection each; they have nothing to lose


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 after a stop, 1 if the port is taken, 2 for a bad setting."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m webui [--check]", file=sys.stderr)
        return _USAGE_ERROR
    try:
        settings = WebSettings.from_env(os.environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return _USAGE_ERROR
    return 0 if arguments else _serve(settings)


def listen(settings: WebSettings) -> socket.socket:
    """The page's own socket, of the kind of its address. Raises OSError where nobody can listen."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    return socket.create_server((settings.address, settings.port), family=family)


def _serve(settings: WebSettings) -> int:
    try:
        listener = listen(settings)
    except OSError as exc:
        where = f"WEBUI_ADDRESS={settings.address} WEBUI_PORT={settings.port}"
        print(f"{where}: a free port is needed ({exc.strerror})", file=sys.stderr)
        return 1
    # Imported late: --check must answer at once.
    import uvicorn

    from webui.app import create_app

    app = create_app(settings)
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    print(f"web page: http://{host}:{settings.port}/ for the service at {settings.gateway_url}", flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_STOP_S)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
