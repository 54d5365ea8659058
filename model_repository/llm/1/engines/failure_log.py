"""Why an engine did not start, in vLLM's own words.

The engine is another process: the caller of ``AsyncLLM`` only hears that it failed, the cause goes to vLLM's log. So
vLLM's log gets a second place for its errors, by ``VLLM_LOGGING_CONFIG_PATH``, which the engine's processes inherit.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ..errors import first_line

_VARIABLE = "VLLM_LOGGING_CONFIG_PATH"
_HANDLER = "failures"
_MAX_BYTES = 1 << 20
_CAUSE = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception): (.+)$", re.MULTILINE)
_FITTING_LENGTH = re.compile(r"estimated maximum model length is (\d+)")


class FailureLog:
    """The errors that vLLM's processes have logged since :meth:`mark`; none where the operator configures logging."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._start = 0

    @staticmethod
    def of(environ: Mapping[str, str]) -> FailureLog:
        """The log that :func:`configure_logging` set up for this environment."""
        try:
            config = json.loads(Path(environ[_VARIABLE]).read_text(encoding="utf-8"))
            return FailureLog(Path(config["handlers"][_HANDLER]["filename"]))
        except (KeyError, TypeError, OSError, ValueError):
            return FailureLog(None)

    def mark(self) -> None:
        """Forget what was logged up to now."""
        self._start = self._path.stat().st_size if self._path else 0

    def text(self) -> str:
        if self._path is None:
            return ""
        with self._path.open("rb") as file:
            file.seek(self._start)
            return file.read(_MAX_BYTES).decode("utf-8", "replace")


def configure_logging(level: str, environ: MutableMapping[str, str]) -> None:
    """Have vLLM log to standard output from ``level`` on and its errors also where :class:`FailureLog` reads them.

    An operator's own ``VLLM_LOGGING_CONFIG_PATH`` or ``VLLM_CONFIGURE_LOGGING`` stays.
    """
    if environ.get(_VARIABLE) or environ.get("VLLM_CONFIGURE_LOGGING", "1") != "1":
        return
    config = json.dumps(_logging_config(level, _file_in_memory("vllm-failures")))
    path = _file_in_memory("vllm-logging")
    Path(path).write_text(config, encoding="utf-8")
    environ[_VARIABLE] = path


def cause(exc: BaseException, log: str) -> str:
    """Why vLLM failed, in one line: the last error of its log, else the innermost one of ``exc``, which wraps it."""
    logged = _CAUSE.findall(log)
    if logged:
        return str(logged[-1])
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return first_line(exc)


def fitting_length(log: str) -> int | None:
    """The ``max_model_len`` that vLLM says the KV cache holds, in tokens."""
    found = _FITTING_LENGTH.search(log)
    return int(found[1]) if found else None


def _file_in_memory(name: str) -> str:
    """A file that lives as long as this process and that its children find by the path; nothing is left behind."""
    return f"/proc/{os.getpid()}/fd/{os.memfd_create(name)}"


def _logging_config(level: str, failures: str) -> dict[str, Any]:
    plain = {"format": "%(levelname)s %(asctime)s %(processName)s [%(filename)s:%(lineno)d] %(message)s"}
    console = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "level": level, "formatter": "plain"}
    to_file = {"class": "logging.FileHandler", "filename": failures, "level": "ERROR", "formatter": "plain"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": plain},
        "handlers": {"console": console, _HANDLER: to_file},
        "loggers": {
            "vllm": {"handlers": ["console", _HANDLER], "level": level, "propagate": False},
            # It warns of schedulers that are not vLLM's, of which ours (vllm_scheduler.py) is one on purpose.
            "vllm.config.scheduler": {"level": "ERROR"},
        },
    }
