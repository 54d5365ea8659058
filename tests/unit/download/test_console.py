"""Secrets do not reach the screen, and a long download is heard of."""

from __future__ import annotations

import io
import logging
import traceback
from pathlib import Path

import pytest

from download import console


def test_secrets_are_hidden_whoever_writes() -> None:
    screen = io.StringIO()
    stream = console.Redacted(screen, ["s3cret", "other"])
    print("token s3cret", file=stream)
    logging.StreamHandler(stream).emit(logging.LogRecord("x", logging.INFO, "", 0, "%s", ("other",), None))
    try:
        raise ValueError("refused: s3cret")
    except ValueError:
        traceback.print_exc(file=stream)
    assert "s3cret" not in screen.getvalue()
    assert "other" not in screen.getvalue()
    assert "refused: ***" in screen.getvalue()


def test_without_secrets_text_is_unchanged() -> None:
    screen = io.StringIO()
    assert console.Redacted(screen, []).write("text") == 4
    assert screen.getvalue() == "text"


def test_progress_is_told_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PROGRESS_EVERY_S", 0.01)
    told = ""
    (tmp_path / "file").write_bytes(bytes(2_500_000))
    with console.progress_lines(tmp_path):
        while "so far" not in told:  # the test's own time limit ends a wait in vain
            told += capsys.readouterr().err
    assert told.startswith("download_model: 2.5 MB so far, 0.0 MB a second\n")
