"""Text that grows by token: whole characters, stop strings, and pieces that are never taken back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_model.engines.transformers_text import CompletionText, Detokenizer, find_stop, held_back
from llm_model.parameters import SamplingParameters


def decode_bytes(token_ids: list[int]) -> str:
    """One token a byte, as the worst of byte-level tokenizers."""
    return bytes(token_ids).decode(errors="replace")


def completion(prompt: str = "", **params: Any) -> CompletionText:
    return CompletionText(decode_bytes, list(prompt.encode()), SamplingParameters(**params))


def feed(text: CompletionText, content: str) -> tuple[str | None, list[str]]:
    """Push a text byte by byte until a stop string; return it and the pieces released after each byte."""
    pieces = []
    for count, byte in enumerate(content.encode(), start=1):
        stop = text.push(byte, count)
        pieces.append(text.release(stop is not None))
        if stop is not None:
            return stop, pieces
    return None, pieces


def test_character_comes_when_its_last_byte_has_come() -> None:
    detokenizer = Detokenizer(decode_bytes, [])
    assert [detokenizer.push(byte) for byte in "核a".encode()] == ["", "", "核", "a"]


def test_prompt_is_context_and_no_part_of_the_text() -> None:
    def spaced(token_ids: list[int]) -> str:  # drops the space before the first word, as SentencePiece does
        return "".join(f" w{token}" for token in token_ids).lstrip()

    detokenizer = Detokenizer(spaced, [1, 2, 3])
    assert detokenizer.push(4) + detokenizer.push(5) == " w4 w5"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")), st.text(max_size=5))
def test_pieces_join_to_the_whole(content: str, prompt: str) -> None:
    detokenizer = Detokenizer(decode_bytes, list(prompt.encode()))
    assert "".join(map(detokenizer.push, content.encode())) == content


def test_unfinished_character_at_the_end_is_left_out() -> None:
    text = completion()
    for count, byte in enumerate("好核".encode()[:-1], start=1):
        text.push(byte, count)
    assert text.release(ended=True) == "好"


@pytest.mark.parametrize(
    ("text", "new_chars", "stops", "found"),
    [
        ("ab.", 1, ["."], (".", 2)),
        ("a.b", 1, ["."], None),  # searched before
        ("one two", 1, ["two", "o"], ("two", 4)),  # both end with the last character: the first listed
        ("a.b,c", 5, [",", "."], (".", 1)),  # the one that ends first
        ("abc", 1, [], None),
        ("xab", 1, ["ab"], ("ab", 1)),  # begins in old text
    ],
)
def test_find_stop(text: str, new_chars: int, stops: list[str], found: tuple[str, int] | None) -> None:
    assert find_stop(text, new_chars, stops) == found


@pytest.mark.parametrize(
    ("text", "stops", "held"),
    [
        ("ab", ["bc"], 1),
        ("ab", ["abc", "bx"], 2),
        ("ab", ["ab"], 0),
        ("ab", ["c"], 0),
        ("aa", ["aab"], 2),
        ("", ["a"], 0),
    ],
)
def test_held_back(text: str, stops: list[str], held: int) -> None:
    assert held_back(text, stops) == held


def test_stop_string_ends_and_is_cut() -> None:
    text = completion(stop=("###",))
    stop, pieces = feed(text, "one ## two ### three")
    assert (stop, "".join(pieces), text.text) == ("###", "one ## two ", "one ## two ")
    assert pieces[:6] == ["o", "n", "e", " ", "", ""]  # the beginning of a stop string is held back


def test_stop_string_is_kept_when_asked_for() -> None:
    stop, pieces = feed(completion(stop="end", include_stop_str_in_output=True), "the end.")
    assert (stop, "".join(pieces)) == ("end", "the end")


def test_stop_strings_count_only_after_min_tokens() -> None:
    stop, pieces = feed(completion(stop=".", min_tokens=4), "a.b.c.d")
    assert (stop, "".join(pieces)) == (".", "a.b.c")


@given(
    st.text("ab.", max_size=40), st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=3), st.booleans()
)
def test_released_text_is_never_taken_back(content: str, stops: list[str], keeps: bool) -> None:
    text = completion(stop=tuple(stops), include_stop_str_in_output=keeps)
    stop, pieces = feed(text, content)
    released = "".join(pieces) + text.release(ended=True)
    assert released == text.text
    ends = [content.find(s) + len(s) for s in stops if s in content]
    assert (stop is not None) == bool(ends)
    if stop is not None:
        assert released == content[: min(ends) if keeps else min(ends) - len(stop)]
