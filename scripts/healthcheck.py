"""The image's health check: exit status 0 while ``GET /`` answers 200, else 1 with the reason."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0  # below the one of the HEALTHCHECK instruction


def main() -> int:
    """Ask the gateway of this container."""
    port = os.environ.get("GATEWAY_PORT", "").strip() or "8000"
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with without_proxy.open(f"http://127.0.0.1:{port}/", timeout=TIMEOUT_S) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as exc:
        print(f"{exc.code}: {exc.read().decode(errors='replace')}")
        return 1
    except OSError as exc:
        print(f"no answer on port {port}: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
