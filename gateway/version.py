"""The version of this service, as the project's file ``VERSION`` says: its one place."""

from __future__ import annotations

from pathlib import Path

VERSION = (Path(__file__).resolve().parent.parent / "VERSION").read_text(encoding="utf-8").strip()
