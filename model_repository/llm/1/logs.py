"""The model process's log: one line an event, text or JSON, on standard output."""

from __future__ import annotations

import json
import logging
import sys

logger = logging.getLogger("llm.model")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (Unix seconds), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(level: str, log_format: str) -> None:
    """Send this package's records to standard output; vLLM's loggers keep their own handlers."""
    handler = logging.StreamHandler(sys.stdout)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
