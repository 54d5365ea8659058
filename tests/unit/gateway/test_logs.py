"""The log: one line an event, with its fields, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys

from gateway.logs import JsonFormatter, TextFormatter


def _record(message: str = "request", **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("gateway.request", logging.INFO, __file__, 1, message, (), None)
    record.fields = fields
    return record


def test_text_shows_fields_behind_the_message() -> None:
    assert TextFormatter().format(_record(id="a", status=200)).endswith("INFO gateway.request: request id=a status=200")


def test_json_has_one_object_a_line() -> None:
    line = JsonFormatter().format(_record("two\nlines", id="a", ms=1.5))
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["message"], entry["id"], entry["ms"], entry["level"]) == ("two\nlines", "a", 1.5, "INFO")


def test_json_holds_the_traceback() -> None:
    record = _record()
    try:
        raise ValueError("boom")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: boom" in json.loads(JsonFormatter().format(record))["exception"]
