"""The tokenizer: batches equal singles, and decoded texts end where vLLM's own detokenizer lets them end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream, Metaspace

from llm_model.errors import InvalidArgument, StartupError
from llm_model.tokenization import Tokenization, model_max_length
from tests.unit.model.fuzz import quick
from tests.unit.model.tiny_model import SPECIAL_TOKENS, build_tokenizer, write_model_folder

TOKENIZER = build_tokenizer()
TOKENIZATION = Tokenization(TOKENIZER)
VOCABULARY = len(TOKENIZER)
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "什么是线程束?"}]

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["你好，世界", "😀👍🏽", "<|im_start|>user\nhi<|im_end|>", "a\x00b", "é", "é"]
)
TOKEN_IDS = st.lists(st.integers(0, VOCABULARY - 1), max_size=20)
EMOJI = TOKENIZER.backend_tokenizer.encode("😀", add_special_tokens=False).ids  # four tokens, a byte each


def incrementally(token_ids: list[int], *, skip_special_tokens: bool) -> str:
    """What vLLM's fast detokenizer has put out after these tokens: it steps the same library's decode stream."""
    stream = DecodeStream(skip_special_tokens=skip_special_tokens)
    pieces = [stream.step(TOKENIZER.backend_tokenizer, token_id) for token_id in token_ids]
    return "".join(piece for piece in pieces if piece)


@quick
@given(st.lists(TEXTS, max_size=6), st.booleans())
def test_a_batch_is_encoded_as_its_texts_one_by_one(texts: list[str], add_special_tokens: bool) -> None:
    batch = TOKENIZATION.encode(texts, add_special_tokens=add_special_tokens)
    assert batch == [TOKENIZER(text, add_special_tokens=add_special_tokens).input_ids for text in texts]
    assert batch == [TOKENIZATION.encode([text], add_special_tokens=add_special_tokens)[0] for text in texts]


@quick
@given(TEXTS)
def test_whole_texts_come_back(text: str) -> None:
    (ids,) = TOKENIZATION.encode([text], add_special_tokens=False)
    assert TOKENIZATION.decode([ids], skip_special_tokens=False) == [text.rstrip("\ufffd")]


@quick
@given(st.lists(TEXTS.map(lambda text: TOKENIZER(text).input_ids), max_size=4), st.data(), st.booleans())
def test_texts_cut_anywhere_end_as_in_incremental_decoding(whole: list[list[int]], data: Any, skip: bool) -> None:
    cut = [ids[: data.draw(st.integers(0, len(ids)))] for ids in whole]
    expected = [incrementally(ids, skip_special_tokens=skip) for ids in cut]
    assert TOKENIZATION.decode(cut, skip_special_tokens=skip) == expected


@quick
@given(st.lists(TOKEN_IDS, max_size=3))
@example([[]])
def test_any_tokens_are_decoded_and_never_end_within_a_character(sequences: list[list[int]]) -> None:
    texts = TOKENIZATION.decode(sequences, skip_special_tokens=True)
    assert len(texts) == len(sequences)
    for ids, text in zip(sequences, texts, strict=True):
        assert not text.endswith("\ufffd")
        assert TOKENIZER.backend_tokenizer.decode(ids, skip_special_tokens=True).startswith(text)


def test_a_character_cut_off_is_left_out() -> None:
    assert len(EMOJI) == 4
    (greeting,) = TOKENIZATION.encode(["你好"], add_special_tokens=False)
    for cut in range(4):
        assert TOKENIZATION.decode([greeting + EMOJI[:cut], EMOJI[:cut]], skip_special_tokens=True) == ["你好", ""]
    assert TOKENIZATION.decode([greeting + EMOJI], skip_special_tokens=True) == ["你好😀"]


def test_a_long_end_that_is_no_text_costs_no_time() -> None:
    calls = 0
    decode_batch = TOKENIZATION._decode_batch

    def counted(*arguments: Any) -> list[str]:
        nonlocal calls
        calls += 1
        return decode_batch(*arguments)

    tokenization = Tokenization(TOKENIZER)
    tokenization._decode_batch = counted  # type: ignore[method-assign]
    (greeting,) = TOKENIZATION.encode(["hi"], add_special_tokens=False)
    assert tokenization.decode([greeting + EMOJI[1:2] * 5000], skip_special_tokens=True) == ["hi"]
    assert calls < 10


def test_special_tokens_are_skipped_or_shown() -> None:
    (ids,) = TOKENIZATION.encode(["hi<|im_end|>"], add_special_tokens=False)
    assert ids[-1] == TOKENIZATION.special_token_id("<|im_end|>")
    assert TOKENIZATION.decode([ids], skip_special_tokens=True) == ["hi"]
    assert TOKENIZATION.decode([ids], skip_special_tokens=False) == ["hi<|im_end|>"]


def test_only_added_tokens_have_a_special_id() -> None:
    found = [TOKENIZATION.special_token_id(text) for text in SPECIAL_TOKENS]
    assert found == TOKENIZER.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert [TOKENIZATION.special_token_id(text) for text in ("a", "", "<|im_end|> ", "<|im_end")] == [None] * 4


def test_a_text_without_utf8_form_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="cannot be encoded as UTF-8"):
        TOKENIZATION.encode(["fine", "\ud800"], add_special_tokens=False)


def test_truncation_and_padding_of_the_tokenizers_file_are_off() -> None:
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=5)
    short, long = Tokenization(tokenizer).encode(["a", "hello world " * 9], add_special_tokens=True)
    assert len(short) == 1
    assert len(long) > 9


class PythonTokenizer:
    """A tokenizer without a Rust implementation: characters are their code points."""

    chat_template = None

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> Any:
        ids = [[ord(letter) for letter in text] + [0] * add_special_tokens for text in texts]
        return SimpleNamespace(input_ids=ids)

    def batch_decode(self, sequences: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        return ["".join(chr(i) for i in ids if i or not skip_special_tokens) for ids in sequences]

    def get_added_vocab(self) -> dict[str, int]:
        return {"<eos>": 0}


def test_a_tokenizer_in_python_is_used_through_its_own_interface() -> None:
    tokenization = Tokenization(PythonTokenizer())
    assert tokenization.encode(["ab", ""], add_special_tokens=True) == [[97, 98, 0], [0]]
    assert tokenization.decode([[97, 0], []], skip_special_tokens=True) == ["a", ""]
    assert tokenization.special_token_id("<eos>") == 0


def test_where_a_tokens_text_depends_on_those_before_it() -> None:
    sentencepiece_like = build_tokenizer()
    sentencepiece_like.backend_tokenizer.decoder = Metaspace()
    assert not TOKENIZATION.needs_context
    assert Tokenization(sentencepiece_like).needs_context
    assert Tokenization(PythonTokenizer()).needs_context


def test_chats_are_rendered_with_the_models_template() -> None:
    expected = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n什么是线程束?<|im_end|>\n<|im_start|>assistant\n"
    assert TOKENIZATION.render_chat(CHAT) == expected
    assert TOKENIZER.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == expected


def test_without_a_template_messages_are_joined() -> None:
    assert Tokenization(PythonTokenizer()).render_chat(CHAT) == "s\n\n什么是线程束?"


def test_a_refusal_of_the_template_is_the_callers_fault() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('Only user roles\nare supported') }}"
    with pytest.raises(InvalidArgument) as caught:
        Tokenization(tokenizer).render_chat(CHAT)
    assert caught.value.message == "messages: the chat template refuses them: Only user roles"


def test_a_tokenizer_is_loaded_from_its_folder(model_folder: Path) -> None:
    loaded = Tokenization.load(str(model_folder), trust_remote_code=False)
    texts = ["你好 world", "<|im_start|>"]
    assert loaded.encode(texts, add_special_tokens=False) == TOKENIZATION.encode(texts, add_special_tokens=False)
    assert loaded.render_chat(CHAT) == TOKENIZATION.render_chat(CHAT)


def test_a_broken_tokenizer_stops_the_start_in_one_line(tmp_path: Path) -> None:
    write_model_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StartupError, match=f"^the tokenizer in {tmp_path} cannot be loaded: ") as caught:
        Tokenization.load(str(tmp_path), trust_remote_code=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"max_position_embeddings": 131072}, 8192),
        ({}, 8192),
        ({"max_position_embeddings": None}, 8192),
        ({"text_config": {"max_position_embeddings": 1024}}, 1024),
    ],
)
def test_the_models_own_length_is_capped(tmp_path: Path, config: dict[str, Any], expected: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert model_max_length(str(tmp_path), 8192) == expected


@pytest.mark.parametrize("config", [{"max_position_embeddings": "long"}, {"text_config": 5}])
def test_a_length_that_is_no_number_stops_the_start(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(StartupError, match=r"config\.json: max_position_embeddings is no number"):
        model_max_length(str(tmp_path), 8192)


@pytest.mark.parametrize("end, opens", [("", False), ("<think>\n", True), ("<think>\n\n</think>\n\n", False)])
def test_a_template_may_open_a_think_block(end: str, opens: bool) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}" + end
    assert Tokenization(tokenizer).opens_think is opens
