"""The stream's pieces together are the answer, however the text is cut; and they come as early as they can."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.policy.answer import finish_answer, outside_think
from gateway.policy.budget import Plan
from gateway.policy.streaming import StreamedAnswer
from gateway.settings import AnswerSettings

SHORT = Plan(64, is_short=True, asks_for_code=False)
SHORT_CODE = Plan(64, is_short=True, asks_for_code=True)
LONG = Plan(192, is_short=False, asks_for_code=False)
TWO = AnswerSettings(max_sentences=2)

_PARTS = st.sampled_from(
    [
        *("<think>", "</think>", "<THINK>", "<thi", "nk>", "</", "<", "例如：", "比如", "举例来说", "：", "例", "举"),
        *("。", "，", "；", "\n", " ", "a", "答", "!", ".", ". ", "1.", '"', "”", ")", "（", "?", "\u3000"),
    ]
)
_TEXTS = st.one_of(st.text(), st.lists(_PARTS, max_size=25).map("".join))


def stream(text: str, cuts: list[int], plan: Plan, settings: AnswerSettings, *, opens: bool) -> tuple[list[str], str]:
    """The deltas for a text that comes in pieces cut at these places, the last one's included; and the answer."""
    answer = StreamedAnswer(plan, settings, opens_think=opens)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    deltas = [answer.add(text[start:end]) for start, end in itertools.pairwise(places)]
    rest, whole = answer.finish()
    return [*deltas, rest], whole


@given(
    text=_TEXTS,
    cuts=st.lists(st.integers(0, 1000), max_size=30),
    plan=st.sampled_from([SHORT, SHORT_CODE, LONG]),
    settings=st.builds(AnswerSettings, trim_examples=st.booleans(), max_sentences=st.integers(0, 3)),
    opens=st.booleans(),
)
@example(text="一。二。”三", cuts=[1, 2, 3, 4, 5], plan=SHORT, settings=TWO, opens=False)
@example(text="甲，例如：乙", cuts=[1, 2, 3, 4, 5], plan=SHORT, settings=TWO, opens=False)
@example(text="想</think>甲", cuts=[1, 2, 5, 9], plan=SHORT, settings=TWO, opens=True)
def test_the_pieces_are_the_answer(
    text: str, cuts: list[int], plan: Plan, settings: AnswerSettings, *, opens: bool
) -> None:
    deltas, whole = stream(text, cuts, plan, settings, opens=opens)
    assert whole == finish_answer(text, plan, settings)
    closing_tags_alone = outside_think(text.strip()).lower().count("</think>")
    if closing_tags_alone <= (1 if opens else 0):
        assert "".join(deltas) == whole


@pytest.mark.parametrize(
    "pieces, deltas",
    [
        (["甲", "乙", "丙"], ["甲", "乙", "丙", ""]),
        (["<th", "ink>想", "想</thi", "nk>\n", "甲", "乙"], ["", "", "", "", "甲", "乙", ""]),
        (["<think>只有", "想法"], ["", "", "只有想法"]),
        (["甲。", "例", "如：", "乙"], ["甲。", "", "", "", ""]),
        (["甲", "，", "乙"], ["甲", "", "，乙", ""]),
        (["一。", "二。", "三。"], ["一。", "二。", "", ""]),
        (["a ", "b "], ["a", " b", ""]),
        (["a<b"], ["a<b", ""]),
        (["a<", "b"], ["a", "<b", ""]),
        ([], [""]),
    ],
)
def test_a_piece_comes_as_soon_as_it_is_certain(pieces: list[str], deltas: list[str]) -> None:
    answer = StreamedAnswer(SHORT, TWO)
    assert [*(answer.add(piece) for piece in pieces), answer.finish()[0]] == deltas


def test_an_open_think_block_is_held_until_it_closes() -> None:
    answer = StreamedAnswer(LONG, TWO, opens_think=True)
    assert [answer.add(piece) for piece in ("想", "想", "</think>", "甲", "乙")] == ["", "", "", "甲", "乙"]
    assert answer.finish() == ("", "甲乙")
