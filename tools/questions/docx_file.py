"""The course's Word files: a paragraph ``问题：…``, then ``答案：…``, which may go on over several paragraphs.

An answer ends at the next question, at a heading of a chapter or section (a paragraph with a heading's style, or one
like ``第3章 …``), or at the end. Text of tables is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tools.errors import UsageError
from tools.questions.question import Question

_QUESTION = re.compile(r"\s*问题\s*[：:]\s*(.*)", re.DOTALL)
_ANSWER = re.compile(r"\s*答案\s*[：:]\s*(.*)", re.DOTALL)
# A heading is short and no sentence: an answer's paragraph may begin with 第3章 too.
_CHAPTER = re.compile(r"\s*第\s*[0-9一二三四五六七八九十百]+\s*[章节](?!.*[，。；：！？,;:!?])\s*.{0,40}")
_MARK = "\x00"  # stands for a heading; no text of a Word file contains it


def read_docx(file: Path) -> list[Question]:
    """Read all pairs of a file. Raises :class:`UsageError`."""
    import docx
    from docx.opc.exceptions import PackageNotFoundError

    try:
        document = docx.Document(str(file))
    except (PackageNotFoundError, KeyError, ValueError, OSError) as exc:
        raise UsageError(f"{file}: not a Word file (.docx)") from exc
    paragraphs = (_MARK if _is_heading(one.style) else one.text for one in document.paragraphs)
    return pairs(paragraphs, str(file))


def pairs(paragraphs: Iterable[str], source: str) -> list[Question]:
    """Put questions and answers together. Raises :class:`UsageError` for a question without an answer."""
    found: list[Question] = []
    question: list[str] = []
    answer: list[str] = []
    current: list[str] | None = None
    for text in [*paragraphs, "问题："]:
        if match := _QUESTION.fullmatch(text):
            found += _pair(question, answer, source)
            question, answer = [match[1]], []
            current = question
        elif match := _ANSWER.fullmatch(text):
            answer.append(match[1])
            current = answer
        elif text == _MARK or _CHAPTER.fullmatch(text):
            current = None
        elif current is not None:
            current.append(text)
    return found


def _pair(question: list[str], answer: list[str], source: str) -> list[Question]:
    prompt, reference = _joined(question), _joined(answer)
    if prompt and not reference:
        raise UsageError(f"{source}: the question {prompt!r} has no answer")
    if reference and not prompt:
        raise UsageError(f"{source}: the answer {reference[:40]!r} has no question")
    return [Question(prompt, reference)] if prompt else []


def _joined(parts: list[str]) -> str:
    return "\n".join(part.strip() for part in parts if part.strip())


def _is_heading(style: object) -> bool:
    name = str(getattr(style, "name", "") or "")
    return name.lower().startswith(("heading", "title", "标题"))
