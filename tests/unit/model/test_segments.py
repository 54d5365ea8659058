"""Token ids of texts put together from parts: the same as of whole texts, and no part is tokenized twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_model import segments
from llm_model.segments import Segmenter, segmenter
from tests.unit.model.fuzz import quick
from tests.unit.model.tiny_model import SPECIAL_TOKENS, build_tokenizer

BACKEND = build_tokenizer().backend_tokenizer
DEFINITION: dict[str, Any] = json.loads(BACKEND.to_str())
SYSTEM = "<|im_start|>system\n你好<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>\n<|im_start|>assistant\n"
PIECES = [*SPECIAL_TOKENS, "<|im_", "start|>", "<", "|>", "<|im_start|", "user\n", " ", "\n\n", "你好", "é", "é", "a"]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


class Encoder:
    """Encodes, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        self.asked += texts
        return whole(texts)


def whole(texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in BACKEND.encode_batch(list(texts), add_special_tokens=False)]


def made(encoder: Encoder) -> Segmenter:
    found = segmenter(json.dumps(DEFINITION), encoder)
    assert found is not None
    return found


@quick
@given(st.lists(st.lists(TEXTS, max_size=4), max_size=3))
def test_the_ids_are_those_of_the_whole_texts(batches: list[list[str]]) -> None:
    found = made(Encoder())
    for texts in [*batches, *batches, *batches]:
        assert found.encode(texts) == whole(texts)


def test_in_a_batch_of_chats_each_part_is_tokenized_once() -> None:
    encoder = Encoder()
    texts = [f"{SYSTEM}{number}?{END}" for number in range(50)]
    assert made(encoder).encode(texts) == whole(texts)
    assert len(encoder.asked) == len(set(encoder.asked))
    assert set(encoder.asked) == {"system\n你好", "\n", "assistant\n", *(f"user\n{number}?" for number in range(50))}


def test_parts_that_came_twice_are_kept_and_questions_are_not() -> None:
    encoder = Encoder()
    found = made(encoder)
    for number in range(5):
        found.encode([f"{SYSTEM}{number}?{END}"])
    assert encoder.asked.count("system\n你好") == 2
    assert [f"user\n{number}?" in encoder.asked for number in range(5)] == [True] * 5
    assert not any(part.startswith("user") for part in found._kept)


def test_what_is_kept_has_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_MAX_KEPT", 4)
    monkeypatch.setattr(segments, "_MAX_SEEN", 8)
    monkeypatch.setattr(segments, "_LONGEST_KEPT", 10)
    encoder = Encoder()
    found = made(encoder)
    for number in range(100):
        texts = [f"{number % 7}", "long, longer, the longest", f"{number}"]
        assert found.encode(texts) == whole(texts)
        assert len(found._kept) <= 4
        assert len(found._seen) <= 8
    assert encoder.asked.count("long, longer, the longest") == 100


def test_of_two_special_tokens_the_longer_one_counts() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>x", "<|im"]})
    backend = tokenizer.backend_tokenizer
    found = segmenter(backend.to_str(), lambda texts: [e.ids for e in backend.encode_batch(list(texts))])
    assert found is not None
    for text in ("a<|im_start|>xb", "<|im_start|>y", "<|im_star", "<|im_end|>", "<|im_start|><|im_start|>xx"):
        assert found.encode([text]) == [backend.encode(text, add_special_tokens=False).ids]


def changed(**changes: Any) -> str:
    return json.dumps(DEFINITION | changes)


@pytest.mark.parametrize(
    "definition",
    [
        changed(pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}),
        changed(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
        changed(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [{"type": "Split"}, {"type": "Sequence", "pretokenizers": [{"type": "Metaspace"}]}],
            }
        ),
        changed(normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}),
        changed(normalizer={"type": "Strip", "strip_left": True, "strip_right": True}),
        changed(added_tokens=[]),
        changed(added_tokens=[DEFINITION["added_tokens"][0] | {"lstrip": True}]),
        changed(added_tokens=[DEFINITION["added_tokens"][0] | {"normalized": True}]),
        changed(added_tokens=[DEFINITION["added_tokens"][0] | {"single_word": True}]),
        changed(model=DEFINITION["model"] | {"dropout": 0.1}),
    ],
)
def test_a_tokenizer_whose_parts_are_not_alone_gets_none(definition: str) -> None:
    assert segmenter(definition, whole) is None


def test_no_steps_or_unicode_normalization_are_fine() -> None:
    assert segmenter(changed(pre_tokenizer=None, normalizer=None), whole) is not None
    assert segmenter(changed(normalizer={"type": "NFC"}), whole) is not None
