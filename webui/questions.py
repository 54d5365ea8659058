"""Question files: JSONL in the shapes that are in use, and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from webui.errors import BadUpload

# In this order, as the tools read the same files (tools/questions/jsonl_file.py).
_QUESTION_FIELDS = ("prompt", "instruction", "question")
_REFERENCE_FIELDS = ("reference", "output", "response", "answer")


@dataclass(frozen=True)
class Question:
    """One question. ``reference`` is None where the file has none."""

    text: str
    reference: str | None = None


@dataclass(frozen=True)
class Answer:
    """What became of a question. ``problem`` says why there is no answer; ``score`` is ROUGE-L F1, 0 to 1."""

    question: Question
    text: str
    problem: str = ""
    score: float | None = None

    def as_json(self) -> str:
        """One line of the file of results."""
        fields = {
            "prompt": self.question.text,
            "response": self.text,
            "reference": self.question.reference,
            "rouge_l_f1": None if self.score is None else round(self.score, 6),
            "error": self.problem or None,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file: ``messages``, or a question and perhaps its reference answer (``prompt``, ``reference`` …).

    Raises:
        BadUpload: naming the first line that is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: U+2028 may stand in a text
    except UnicodeDecodeError as exc:
        raise BadUpload("error.not_utf8", file=path.name) from exc
    questions = [_question(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not questions:
        raise BadUpload("error.no_questions", file=path.name)
    return questions


def write_answers(answers: Sequence[Answer], path: Path) -> None:
    """Write the results as JSONL, in the order of the questions."""
    path.write_text("".join(answer.as_json() + "\n" for answer in answers), encoding="utf-8")


def _question(line: str, number: int) -> Question:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise BadUpload("error.bad_line", number=number) from exc
    question = _of_fields(fields) if isinstance(fields, dict) else None
    if question is None:
        raise BadUpload("error.bad_line", number=number)
    return question


def _of_fields(fields: Mapping[str, Any]) -> Question | None:
    messages = fields.get("messages")
    if isinstance(messages, list):
        return _of_messages([message for message in messages if isinstance(message, dict)])
    asked, more = _first_text(fields, _QUESTION_FIELDS), _first_text(fields, ("input",))
    if asked and more and "instruction" in fields:
        asked = f"{asked}\n{more}"  # the shape of instruction data: an instruction and what it is about
    return Question(asked, _first_text(fields, _REFERENCE_FIELDS)) if asked else None


def _of_messages(messages: Sequence[Mapping[str, Any]]) -> Question | None:
    """The last question with an answer after it; where none has one, the last question."""
    for asked, answered in reversed(list(pairwise(messages))):
        if (asked.get("role"), answered.get("role")) == ("user", "assistant"):
            return _of_turns(asked, answered)
    users = [message for message in messages if message.get("role") == "user"]
    return _of_turns(users[-1], {}) if users else None


def _of_turns(asked: Mapping[str, Any], answered: Mapping[str, Any]) -> Question | None:
    text = _first_text(asked, ("content",))
    return Question(text, _first_text(answered, ("content",))) if text else None


def _first_text(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    values = (fields.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value.strip()), None)
