"""Question sets: questions with reference answers, from JSONL in the common shapes or from the course's Word file."""

from __future__ import annotations

from pathlib import Path

from tools.errors import UsageError
from tools.questions.docx_file import read_docx
from tools.questions.jsonl_file import read_jsonl
from tools.questions.question import Question

__all__ = ["Question", "read_questions"]

READERS = {".jsonl": read_jsonl, ".docx": read_docx}


def read_questions(file: Path, limit: int | None = None) -> list[Question]:
    """Read a question set, or its first ``limit`` questions. Raises :class:`UsageError` naming file and place."""
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise UsageError(f"{file}: the name must end with {' or '.join(READERS)}")
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    questions = reader(file)
    if not questions:
        raise UsageError(f"{file}: no question in it")
    return questions[:limit]
