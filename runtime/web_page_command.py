"""How the web page is started: in the environment of its own that `make` gives it, else in the one that runs this."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from runtime.errors import StartError
from runtime.processes import end_with_parent
from runtime.settings import PROJECT_ROOT
from runtime.triton_command import NOT_FOR_TRITON

# The page asks the person for the admin token, and fetches nothing; the key is for the gateway, which it asks.
NOT_FOR_THE_PAGE = tuple(name for name in NOT_FOR_TRITON if name != "API_KEY")


def web_page_python(root: Path = PROJECT_ROOT) -> str | None:
    """The interpreter that has Gradio, if there is one."""
    own = root / ".venv-web" / "bin" / "python"
    if own.exists():
        return str(own)
    return sys.executable if importlib.util.find_spec("gradio") else None


def web_page_problem(root: Path = PROJECT_ROOT) -> str | None:
    """One line if the page cannot be started."""
    if web_page_python(root):
        return None
    return "WEBUI=1 needs the page's packages (requirements/web.txt): run `make venv-web`"


def run_web_page(environ: Mapping[str, str]) -> NoReturn:
    """Become `python -m webui`. Raises :class:`StartError` where its packages are missing."""
    python = web_page_python()
    if python is None:
        raise StartError(web_page_problem() or "")
    end_with_parent(signal.SIGTERM)
    kept = {name: value for name, value in environ.items() if name not in NOT_FOR_THE_PAGE}
    os.execve(python, [python, "-m", "webui"], kept)
