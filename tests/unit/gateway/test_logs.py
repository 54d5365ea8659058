"""The log: one line an event, with its fields, as text or as JSON."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading

import pytest

from gateway import log_writer
from gateway.log_writer import LogWriter
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


def test_lines_are_written_in_order_and_the_last_ones_at_the_end() -> None:
    output = io.StringIO()
    writer = LogWriter(output)
    for number in range(1000):
        writer.handle(_record(f"line {number}"))
    writer.close()
    assert output.getvalue().splitlines() == [f"line {number}" for number in range(1000)]


class Stalled(io.StringIO):
    """A reader that stops reading until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = threading.Event()
        self.began = threading.Event()

    def write(self, text: str) -> int:
        self.began.set()
        self.reads.wait(20)
        return super().write(text)


def test_a_stalled_reader_costs_lines_and_not_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "_MAX_WAITING", 10)
    output = Stalled()
    writer = LogWriter(output)
    writer.handle(_record("first"))
    assert output.began.wait(20)
    for number in range(15):
        writer.handle(_record(f"line {number}"))
    output.reads.set()
    writer.close()
    lines = output.getvalue().splitlines()
    assert lines == ["first", *(f"line {number}" for number in range(10)), "5 lines were dropped, as nobody read them"]


def test_what_cannot_be_shown_or_written_ends_nothing() -> None:
    output = io.StringIO()
    writer = LogWriter(output)
    writer.handle(logging.LogRecord("gateway", logging.INFO, __file__, 1, "%d", ("no number",), None))
    writer.handle(_record("next"))
    writer.close()
    assert output.getvalue().splitlines()[-1] == "next"
    output.close()
    writer = LogWriter(output)
    writer.handle(_record("to a closed file"))
    writer.close()
