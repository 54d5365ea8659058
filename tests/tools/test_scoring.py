"""ROUGE-L F1 against scores worked out by hand: 2·L / (words of the answer + words of the reference), L the longest
common subsequence of words."""

from __future__ import annotations

import pytest

from tools.evaluate.scoring import rouge_l, words


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        # Identical Chinese texts: 线程 块 共享内存, L = 3, 6 / 6.
        ("线程块共享内存", "线程块共享内存", 1.0),
        # 线程 访问 内存 / 线程 读取 内存: L = 2 (线程 … 内存), 4 / 6.
        ("线程访问内存", "线程读取内存", 2 / 3),
        # Nothing in common.
        ("今天天气很好", "线程访问内存", 0.0),
        # Punctuation is a word: 7 words against 6, L = 6, 12 / 13.
        ("线程块是线程的集合。", "线程块是线程的集合", 12 / 13),
        # Order counts: a b c d / a c d e, L = 3 (a c d), 6 / 8.
        ("a b c d", "a c d e", 0.75),
        # Order counts: 内存 访问 线程 backwards, L = 1, 2 / 6.
        ("内存访问线程", "线程访问内存", 1 / 3),
        # A repeated word counts as often as it stands there: a a a / a, L = 1, 2 / 4.
        ("a a a", "a", 0.5),
        # Half an answer: 线程 块 / 线程 块 共享内存 …: L = 2, 4 / 5.
        ("线程块", "线程块共享内存", 4 / 5),
        # Sentences are one row of words: x 。 y 。 / y 。 x 。, L = 2 (y 。, x 。 or 。 。), 4 / 8.
        ("x。y。", "y。x。", 0.5),
    ],
)
def test_known_pairs(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("answer", ["", " ", "\n\n", "\u3000"])
def test_an_empty_answer_scores_nothing(answer: str) -> None:
    assert rouge_l(answer, "线程块") == 0


@pytest.mark.parametrize(
    "answer", ["线程块\n\n共享内存", " 线程块 共享内存\t", "线程块\u3000共享内存", "线程块\r\n共享内存\n"]
)
def test_white_space_makes_no_difference(answer: str) -> None:
    assert rouge_l(answer, "线程块\n共享内存") == pytest.approx(1, abs=1e-6)


def test_chinese_is_counted_in_words() -> None:
    assert words("线程块是线程的集合。") == "线程 块 是 线程 的 集合 。"
