"""The gateway's log: one line an event on standard output, as text or JSON. Prompt texts are never logged."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

from gateway.log_writer import LogWriter
from gateway.settings import LogFormat


class TextFormatter(logging.Formatter):
    """``time level logger: message key=value …``"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        fields = _fields(record)
        line = super().formatMessage(record)
        return " ".join([line, *(f"{name}={value}" for name, value in fields.items())]) if fields else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, logger, message, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Send all records of this process to standard output. Libraries are heard from WARNING on."""
    # What no format shows need not be looked up for every request.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LogWriter(sys.stdout)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger("gateway").setLevel(level)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra={"fields": {…}}``."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields
