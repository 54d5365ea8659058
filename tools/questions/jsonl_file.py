"""JSONL question sets: one object a line, in one of the shapes in which fine-tuning data are passed around.

{"prompt": …, "reference": …}                   also "response", "answer" or "output" for the reference
{"instruction": …, "input": …, "output": …}     a non-empty "input" follows the instruction on a new line
{"question": …, "answer": …}
{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}

Of ``messages`` the last answer of the assistant is the reference and the user's message before it the question; system
messages and earlier turns are left out, as the evaluator sends single questions.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from tools.errors import UsageError
from tools.questions.question import Question

PROMPTS = ("prompt", "instruction", "question")
REFERENCES = ("reference", "output", "response", "answer")


def read_jsonl(file: Path) -> list[Question]:
    """Read all lines; blank ones are skipped. Raises :class:`UsageError` naming the line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: U+2028 may stand in a text
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{file}: cannot be read as UTF-8: {exc}") from exc
    return [_question(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _question(line: str, place: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{place}: not JSON: {exc}") from exc
    if not isinstance(row, dict):
        raise UsageError(f"{place}: not an object")
    if "messages" in row:
        return _from_messages(row["messages"], place)
    prompt, reference = _text(row, PROMPTS, place), _text(row, REFERENCES, place)
    more = row.get("input")
    if "instruction" in row and isinstance(more, str) and more.strip():
        prompt = f"{prompt}\n{more}"
    return Question(prompt, reference)


def _from_messages(messages: Any, place: str) -> Question:
    if not isinstance(messages, list):
        raise UsageError(f"{place}: messages is not a list")
    turns = [(str(one.get("role")), one.get("content")) for one in messages if isinstance(one, dict)]
    for (role, content), (next_role, answer) in reversed(list(pairwise(turns))):
        if (role, next_role) == ("user", "assistant"):
            return Question(
                _text({"content": content}, ("content",), f"{place}: the user's message"),
                _text({"content": answer}, ("content",), f"{place}: the assistant's message"),
            )
    raise UsageError(f"{place}: messages has no user message with an assistant message after it")


def _text(row: dict[str, Any], names: tuple[str, ...], place: str) -> str:
    for name in names:
        if name in row:
            value = row[name]
            if not isinstance(value, str) or not value.strip():
                raise UsageError(f"{place}: {name} is {value!r}, not a text")
            return value
    raise UsageError(f"{place}: none of the fields {', '.join(names)}, nor messages")
