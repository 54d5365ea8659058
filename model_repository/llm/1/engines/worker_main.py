"""An engine's own process: ``python -m 1.engines.worker_main FD FACTORY [FOLDER …]``, started by the model process.

``FD`` is this end of the connection; ``FACTORY`` (``module:function``) makes the engine; each ``FOLDER`` goes on the
module search path. Light at import: an engine whose children are spawned imports this file in each of them again.
"""

# ruff: noqa: E402
from __future__ import annotations

import locale

# As in model.py: what an engine reads is UTF-8, whatever the environment says.
locale.setlocale(locale.LC_CTYPE, "C.UTF-8")

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Serve one engine until the model process says so or is gone."""
    descriptor, factory, *folders = arguments
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _end_all)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the launcher, which stops in order
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        return 1
    sys.path[1:1] = folders
    from .worker_server import serve

    return serve(int(descriptor), factory)


def _end_all(signum: int, frame: object) -> None:
    """The model process is gone: end the engine's processes and this one, which leads their session."""
    from .process_tree import end_own_session

    end_own_session()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
