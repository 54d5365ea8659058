"""ROUGE-L F1 for Chinese: jieba's words, joined with spaces for rouge-chinese, which splits at white space only.

White space is made equal on both sides first (rouge-chinese counts a blank line as a word), and an answer without any
words scores 0 (rouge-chinese raises).
"""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import Any


@cache
def _scorer() -> Any:
    from rouge_chinese import Rouge

    return Rouge(metrics=["rouge-l"], stats=["f"])


@cache
def _cutter() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its last release is older than some deprecations
        import jieba

    jieba.setLogLevel(logging.WARNING)  # it tells about its dictionary on every start
    return jieba


def words(text: str) -> str:
    """The text's words with one space between them; white space itself is no word."""
    return " ".join(word for word in _cutter().cut(" ".join(text.split())) if word.strip())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 of one answer, 0 to 1. Punctuation counts as words, as it does for the evaluator."""
    hypothesis, expected = words(answer), words(reference)
    if not hypothesis or not expected:
        return 0.0
    (scores,) = _scorer().get_scores(hypothesis, expected)
    return float(scores["rouge-l"]["f"])
