"""Answer rules: what is cut, and that nothing is ever cut down to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.answer import cut_examples, finish_answer, keep_sentences, strip_think
from gateway.policy.budget import Plan
from gateway.settings import AnswerSettings

SHORT = Plan(64, is_short=True, asks_for_code=False)
SHORT_CODE = Plan(64, is_short=True, asks_for_code=True)
LONG = Plan(192, is_short=False, asks_for_code=False)


@pytest.mark.parametrize(
    "text,answer",
    [
        ("<think>想一想</think>答案", "答案"),
        ("<THINK>\n想\n一想</THINK>\n\n答案\n", "答案"),
        ("前<think>a</think>中<think>b</think>后", "前中后"),
        ("<think>只有想法</think>", "只有想法"),
        ("<think>没有结束", "没有结束"),
        ("答案<think>没有结束", "答案"),
        ("提示里就开始想了</think>答案", "答案"),
        ("只有想法</think>", "只有想法"),
        ("<think>a</think><think>b</think>", "ab"),
        ("<think></think>", "<think></think>"),
        ("  答案 \n", "答案"),
        ("rethink> it", "rethink> it"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_think_blocks_go_unless_nothing_else_is_there(text: str, answer: str) -> None:
    assert strip_think(text) == answer


@pytest.mark.parametrize(
    "text,answer",
    [
        ("共享内存更快。例如：矩阵乘法。", "共享内存更快。"),
        ("共享内存更快，比如：矩阵乘法。", "共享内存更快"),
        ("共享内存更快。\n举例：矩阵", "共享内存更快。"),
        ("共享内存更快。举例来说：矩阵", "共享内存更快。"),
        ("更快（例如: 矩阵）", "更快"),
        ("例如：只有例子", "例如：只有例子"),
        ("，例如：只有例子", "，例如：只有例子"),
        ("例如矩阵乘法", "例如矩阵乘法"),
        ("没有例子。", "没有例子。"),
    ],
)
def test_examples_are_cut_off(text: str, answer: str) -> None:
    assert cut_examples(text) == answer


@pytest.mark.parametrize(
    "text,limit,answer",
    [
        ("一。二！三？四", 2, "一。二！"),
        ("一。二！三？四", 3, "一。二！三？"),
        ("一。二！三？四", 4, "一。二！三？四"),
        ("一；二；三", 2, "一；二；"),
        ("一。。。二。", 1, "一。。。"),
        ("一。\n\n二。\n三。", 2, "一。\n\n二。"),
        ("\n\n一\n二", 1, "\n\n一"),
        ("他说“一。”二。", 1, "他说“一。”"),
        ("One. Two! Three?", 2, "One. Two!"),
        ("Version 3.14 is out. Next.", 1, "Version 3.14 is out."),
        ("1. one 2. two", 1, "1. one 2. two"),
        ("没有句号", 1, "没有句号"),
        ("", 1, ""),
    ],
)
def test_sentences_are_counted_as_a_reader_does(text: str, limit: int, answer: str) -> None:
    assert keep_sentences(text, limit) == answer


def test_rules_for_short_answers_apply_to_short_answers_only() -> None:
    text = "一。二。三。四。五。六。七。例如：八。"
    settings = AnswerSettings()
    assert finish_answer(text, SHORT, settings) == "一。二。三。四。五。六。"
    assert finish_answer(text, LONG, settings) == text


def test_examples_stay_where_code_was_asked_for_or_trimming_is_off() -> None:
    text = "一。例如：二。"
    assert finish_answer(text, SHORT, AnswerSettings()) == "一。"
    assert finish_answer(text, SHORT_CODE, AnswerSettings()) == text
    assert finish_answer(text, SHORT, AnswerSettings(trim_examples=False)) == text


def test_no_sentence_limit() -> None:
    text = "一。" * 20
    assert finish_answer(text, SHORT, AnswerSettings(max_sentences=0)) == text


_PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "例如：",
        "比如:",
        "举例：",
        "。",
        "，",
        "\n",
        " ",
        "a",
        "答",
        "!",
        ". ",
        "<Think>",
        "（",
        "\0",
    ]
)


@given(
    text=st.one_of(st.text(), st.lists(_PIECES).map("".join)),
    plan=st.sampled_from([SHORT, SHORT_CODE, LONG]),
    settings=st.builds(AnswerSettings, trim_examples=st.booleans(), max_sentences=st.integers(0, 3)),
)
def test_no_rule_makes_an_answer_empty(text: str, plan: Plan, settings: AnswerSettings) -> None:
    answer = finish_answer(text, plan, settings)
    assert bool(answer.strip()) == bool(text.strip())


@given(text=st.lists(_PIECES).map("".join), limit=st.integers(1, 3))
def test_cutting_rules_keep_a_beginning(text: str, limit: int) -> None:
    assert text.startswith(cut_examples(text))
    assert text.startswith(keep_sentences(text, limit))
