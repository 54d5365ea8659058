"""Calls for the generator, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_model.generation import Generator
from llm_model.parameters import DEFAULT
from llm_model.rows import InferenceCall, Row
from llm_model.tokenization import Tokenization

MAX_MODEL_LEN = 50


class CountingTokenization(Tokenization):
    """Counts the calls that decode batches."""

    decodings: list[int]

    def decode(self, sequences: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        self.decodings.append(len(sequences))
        return super().decode(sequences, skip_special_tokens=skip_special_tokens)


def call(texts: Sequence[str], params: Any = DEFAULT, **changes: Any) -> InferenceCall:
    """A call with the same parameters for all texts, or a list of them."""
    each = params if isinstance(params, list) else [params] * len(texts)
    return InferenceCall("", [text.encode() for text in texts], is_chat=False, params=each, **changes)


async def groups(generator: Generator, of: InferenceCall) -> list[list[Row]]:
    return [rows async for rows in generator.run(of)]


async def rows(generator: Generator, of: InferenceCall) -> list[Row]:
    return [row for group in await groups(generator, of) for row in group]


def errors(found: Sequence[Row]) -> list[str | None]:
    return [row.error and str(row.error) for row in found]
