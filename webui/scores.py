"""ROUGE-L F1 of answers against references, words cut by jieba; without the two packages there are no scores."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from webui.questions import Answer


def can_score() -> bool:
    """Whether what scoring needs is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("jieba", "rouge_chinese"))


def scored(answers: Sequence[Answer]) -> list[Answer]:
    """The answers with a score each where there is a reference; no answer scores 0."""
    return [
        answer
        if answer.question.reference is None
        else replace(answer, score=rouge_l(answer.text, answer.question.reference))
        for answer in answers
    ]


def average(answers: Sequence[Answer]) -> float | None:
    """The mean score, None where nothing is scored."""
    scores = [answer.score for answer in answers if answer.score is not None]
    return sum(scores) / len(scores) if scores else None


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1, 0 to 1. White space counts as nothing but a border between words, on both sides."""
    hypothesis, truth = _words(answer), _words(reference)
    if not hypothesis or not truth:  # rouge-chinese raises on an empty text
        return 0.0
    return float(_tools()[1].get_scores(hypothesis, truth)[0]["rouge-l"]["f"])


def _words(text: str) -> str:
    # rouge-chinese splits on white space only, and takes blank lines for words.
    return " ".join(word for word in _tools()[0].lcut(text) if word.strip())


@cache
def _tools() -> tuple[Any, Any]:
    import jieba
    from rouge_chinese import Rouge

    jieba.setLogLevel(logging.WARNING)
    return jieba, Rouge(metrics=["rouge-l"])
