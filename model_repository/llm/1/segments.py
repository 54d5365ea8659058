"""Token ids of the parts of a text between special tokens, kept for the parts that come again and again.

A tokenizer of Qwen's kind looks for its added tokens (``<|im_start|>``) first and treats what stands between two of
them alone. In a batch of chats only the questions differ: the system prompt and the template's own text between special
tokens need be tokenized once. Where that is not certain of a tokenizer, :func:`segmenter` gives none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

EncodeBatch = Callable[[Sequence[str]], list[list[int]]]

# Work on each part alone. Others look at neighbours or at the beginning of the text (Metaspace).
_LOCAL_PRE_TOKENIZERS = {"Split", "ByteLevel", "Digits", "Punctuation"}
_LOCAL_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD"}
_MAX_KEPT = 256  # parts; ids of the longest together are some MiB
_LONGEST_KEPT = 8192  # characters
_MAX_SEEN = 16384


class Segmenter:
    """Encodes texts part by part. May be used by several threads at once."""

    def __init__(self, special_tokens: Mapping[str, int], encode_batch: EncodeBatch) -> None:
        self._special_ids = {"": (), **{text: (token_id,) for text, token_id in special_tokens.items()}}
        self._encode_batch = encode_batch
        # The tokenizer takes the longest of several that begin at the same place.
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._boundary = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._kept: dict[str, list[int]] = {}
        self._seen: set[int] = set()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The same token ids as encoding each text whole, without the tokens that a tokenizer adds around it."""
        split = [self._boundary.split(text) for text in texts]
        ids = self._special_ids | self._known({part for parts in split for part in parts[::2] if part})
        return [list(chain.from_iterable(map(ids.__getitem__, parts))) for parts in split]

    def _known(self, parts: set[str]) -> dict[str, list[int]]:
        kept = self._kept
        known = {part: ids for part in parts if (ids := kept.get(part)) is not None}
        missing = list(parts - known.keys())
        for part, ids in zip(missing, self._encode_batch(missing), strict=True):
            known[part] = ids
            self._keep(part, ids)
        return known

    def _keep(self, part: str, ids: list[int]) -> None:
        """Keep what was seen before: a question that comes once would only take room."""
        if len(part) > _LONGEST_KEPT:
            return
        if len(self._kept) >= _MAX_KEPT:
            self._kept = {}
        if len(self._seen) >= _MAX_SEEN:
            self._seen = set()
        if hash(part) in self._seen:
            self._kept[part] = ids
        self._seen.add(hash(part))


def segmenter(definition: str, encode_batch: EncodeBatch) -> Segmenter | None:
    """A segmenter for a Rust tokenizer, by its definition (``tokenizer.json``); ``None`` where parts are not alone."""
    found = json.loads(definition)
    added: list[dict[str, Any]] = found.get("added_tokens") or []
    whole = all(not token[flag] for token in added for flag in ("normalized", "lstrip", "rstrip", "single_word"))
    steps = [*_steps(found.get("pre_tokenizer"), "pretokenizers"), *_steps(found.get("normalizer"), "normalizers")]
    if not added or not whole or not all(map(_is_local, steps)) or (found.get("model") or {}).get("dropout"):
        return None
    return Segmenter({token["content"]: token["id"] for token in added}, encode_batch)


def _steps(step: dict[str, Any] | None, names: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [inner for each in step[names] for inner in _steps(each, names)] if step["type"] == "Sequence" else [step]


def _is_local(step: dict[str, Any]) -> bool:
    known = step["type"] in _LOCAL_PRE_TOKENIZERS | _LOCAL_NORMALIZERS
    return known and not step.get("add_prefix_space")
