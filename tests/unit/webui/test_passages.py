from __future__ import annotations

import pytest

from webui.passages import Passage, best, cut, with_passages, words


def test_blank_lines_end_a_passage() -> None:
    assert cut("One.\nStill one.\n\nTwo.\n \nThree.") == [
        Passage(1, "One. Still one."),
        Passage(2, "Two."),
        Passage(3, "Three."),
    ]


def test_a_long_paragraph_is_cut_at_ends_of_sentences_and_loses_nothing() -> None:
    text = "".join(f"第{number}句话说的是并行计算。" for number in range(100))
    passages = cut(text, limit=60)
    assert "".join(passage.text for passage in passages) == text
    assert all(len(passage.text) <= 60 and passage.text.endswith("。") for passage in passages)
    assert [passage.number for passage in passages] == list(range(1, len(passages) + 1))


def test_a_sentence_without_an_end_is_cut_at_the_limit() -> None:
    assert [len(passage.text) for passage in cut("x" * 700, limit=300)] == [300, 300, 100]


@pytest.mark.parametrize("text", ["", " \n\n \n"])
def test_nothing_gives_no_passage(text: str) -> None:
    assert cut(text) == []
    assert best([], "question", 3) == []


def test_words_are_latin_words_and_pairs_of_chinese_characters() -> None:
    assert words("CUDA 的共享内存, im2col!") == ["cuda", "im2col", "的共", "共享", "享内", "内存"]
    assert words("核") == ["核"]


def test_the_passage_that_answers_comes_first_and_strangers_do_not_come() -> None:
    passages = cut("线程块是一组线程。\n\n共享内存由线程块中的线程共用。\n\nRain falls in spring.")
    assert [passage.number for passage in best(passages, "什么是共享内存？", 3)] == [2]
    assert [passage.number for passage in best(passages, "rain", 3)] == [3]
    assert best(passages, "猫", 3) == []


def test_rare_words_weigh_more_than_common_ones_and_ties_keep_the_order() -> None:
    passages = [Passage(1, "grid grid"), Passage(2, "grid warp"), Passage(3, "grid block"), Passage(4, "grid block")]
    assert best(passages, "grid warp", 1) == [passages[1]]
    assert [passage.number for passage in best(passages, "block", 4)] == [3, 4]
    assert len(best(passages, "grid", 2)) == 2


def test_passages_go_before_the_question() -> None:
    assert (
        with_passages("Why?", [Passage(2, "Because.")], "Material:", "Now: ")
        == "Material:\n\n[2] Because.\n\nNow: Why?"
    )
    assert with_passages("Why?", [], "Material:", "Now: ") == "Why?"
