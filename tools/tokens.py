"""Counts tokens as the model itself does, with the tokenizer of its folder and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.errors import UsageError


class TokenCounter:
    """The tokenizer of a model folder. Raises :class:`UsageError` if the folder has none that can be read."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise UsageError(f"{folder}: no tokenizer.json in it")
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as exc:  # the library raises nothing more exact
            raise UsageError(f"{file}: not a tokenizer: {exc}") from exc

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, special tokens that frame a prompt left out."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in encoded]
