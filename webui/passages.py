"""Reference material: a text cut into passages, and the ones that fit a question best (BM25)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

PASSAGE_CHARACTERS = 300
_K1, _B = 1.5, 0.75  # BM25's usual constants
_SENTENCE_END = re.compile(r"(?<=[。！？；!?;])|(?<=\.)\s+|\n+")
_LATIN_WORD = re.compile(r"[a-z0-9_]+")
_CHINESE_RUN = re.compile(r"[\u3400-\u9fff]+")


@dataclass(frozen=True)
class Passage:
    """A part of the material. ``number`` counts from 1 in the order of the text."""

    number: int
    text: str


def cut(text: str, limit: int = PASSAGE_CHARACTERS) -> list[Passage]:
    """Cut a text at blank lines, and longer parts at ends of sentences; a passage has at most ``limit`` characters."""
    passages: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        passages += _packed(_sentences(paragraph, limit), limit)
    return [Passage(number, passage) for number, passage in enumerate(passages, start=1)]


def best(passages: Sequence[Passage], question: str, count: int) -> list[Passage]:
    """The passages that share words with the question, best first, at most ``count``."""
    scores = _bm25([words(passage.text) for passage in passages], words(question))
    ranked = sorted(zip(scores, passages, strict=True), key=lambda pair: (-pair[0], pair[1].number))
    return [passage for score, passage in ranked[: max(count, 0)] if score > 0]


def words(text: str) -> list[str]:
    """Latin words in lower case, and every two neighbouring Chinese characters: no dictionary decides what is found."""
    lower = text.lower()
    found = _LATIN_WORD.findall(lower)
    for run in _CHINESE_RUN.findall(lower):
        found += [run] if len(run) == 1 else [run[at : at + 2] for at in range(len(run) - 1)]
    return found


def with_passages(question: str, passages: Sequence[Passage], heading: str, ask: str) -> str:
    """The question as the model gets it: the passages under a heading, then the question."""
    if not passages:
        return question
    shown = "\n\n".join(f"[{passage.number}] {passage.text}" for passage in passages)
    return f"{heading}\n\n{shown}\n\n{ask}{question}"


def _sentences(paragraph: str, limit: int) -> list[str]:
    parts = (part.strip() for part in _SENTENCE_END.split(paragraph) if part)
    return [part[at : at + limit] for part in parts for at in range(0, len(part), limit)]


def _packed(sentences: Sequence[str], limit: int) -> list[str]:
    """As many sentences in one passage as fit."""
    packed: list[str] = []
    for sentence in sentences:
        joined = f"{packed[-1]}{_glue(packed[-1], sentence)}{sentence}" if packed else ""
        if packed and len(joined) <= limit:
            packed[-1] = joined
        else:
            packed.append(sentence)
    return packed


def _glue(before: str, after: str) -> str:
    return " " if before[-1].isascii() and after[0].isascii() else ""


def _bm25(documents: Sequence[Sequence[str]], query: Sequence[str]) -> list[float]:
    counts = [Counter(document) for document in documents]
    average = sum(map(len, documents)) / max(len(documents), 1) or 1.0
    rarity = {word: _inverse_frequency(word, counts) for word in set(query)}
    return [sum(rarity[word] * _saturated(count, word, average) for word in rarity) for count in counts]


def _inverse_frequency(word: str, counts: Sequence[Counter[str]]) -> float:
    having = sum(word in count for count in counts)
    return math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))


def _saturated(count: Counter[str], word: str, average: float) -> float:
    frequency = count[word]
    length = count.total() / average
    return frequency * (_K1 + 1) / (frequency + _K1 * (1 - _B + _B * length))
