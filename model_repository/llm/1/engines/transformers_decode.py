"""The decode loop's unit: one batch of rows, prefilled together and decoded step by step with a key-value cache.

The rows are padded on the left, so that the newest token of each stands in the last column. Padding is masked out and
does not count in the positions: a row gets the tokens it would get alone. Rows that ended are cut out of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .transformers_row import EndTokens, LogprobEntry, Row
from .transformers_sampling import (
    SamplingColumns,
    choose,
    count_tokens,
    forbid,
    is_penalized,
    penalize,
    rank_tokens,
)

_SEED_RANGE = 2**64
_PADDING_ID = 0  # any token will do: it is masked
_REPLACEMENT = "\ufffd"
_CHARACTER_TOKENS = 4  # the most tokens that one UTF-8 character can be spread over


class DecodingModel(Protocol):
    """What a batch needs of a model. ``B`` rows, ``L`` new tokens each, ``T`` cached and new ones, ``V`` vocabulary."""

    vocab_size: int
    device: torch.device
    ends: EndTokens

    def forward(self, token_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Read tokens ``[B, L]`` at ``positions`` ``[B, L]`` with the attention ``mask`` ``[B, T]``.

        Returns the float32 logits ``[B, V]`` behind the last column, and the cache (``None`` goes in at first).
        """

    def select(self, cache: Any, rows: Tensor) -> Any:
        """Return the cache of these rows (int64), in this order; a row may come more than once."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        """Return the text of the tokens."""


class Batch:
    """Rows that are decoded together. ``steps`` counts the forward passes since the prefill."""

    def __init__(self, model: DecodingModel, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.steps = 0
        self._model = model
        self._cache: Any = None
        self._mask = torch.empty(0)
        self._positions = torch.empty(0)
        self._newest = torch.empty(0)
        for row in self.rows:
            self._seed(row)
        self._prepare_parameters()
        if self._columns.is_penalized:
            prompts = [row.request.token_ids if is_penalized(row.params) else [] for row in self.rows]
            self._in_prompt = count_tokens(prompts, model.vocab_size, model.device) > 0
            outputs = [row.token_ids for row in self.rows]
            self._output_counts = count_tokens(outputs, model.vocab_size, model.device)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def step(self) -> None:
        """Run the model once and give every row its next token."""
        logits = self._prefill() if self._cache is None else self._decode()
        self._newest = self._sample(logits)
        tokens = self._newest.tolist()
        entries = self._logprob_entries(logits)
        for index, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            row.accept(token, entries.get(index))
        self.steps += 1

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def keep(self, rows: Sequence[Row]) -> None:
        """Go on with these rows only, in their present order."""
        if len(rows) == len(self.rows) or not rows:
            self.rows = list(rows)
            return
        kept = set(map(id, rows))
        index = [position for position, row in enumerate(self.rows) if id(row) in kept]
        self.rows = [self.rows[position] for position in index]
        self._select(torch.tensor(index, device=self._model.device))
        self._prepare_parameters()

    def _select(self, index: Tensor) -> None:
        self._cache = self._model.select(self._cache, index)
        self._mask = self._mask[index]
        self._positions = self._positions[index]
        self._newest = self._newest[index]
        if self._columns.is_penalized:
            self._in_prompt = self._in_prompt[index]
            self._output_counts = self._output_counts[index]

    def _prepare_parameters(self) -> None:
        params = [row.params for row in self.rows]
        self._columns = SamplingColumns.of(params, self._model.vocab_size, self._model.device)

    def _prefill(self) -> Tensor:
        """Read all prefixes, each distinct one once; return the logits of every row."""
        prefixes = [tuple(row.prefix) for row in self.rows]
        distinct = {prefix: index for index, prefix in enumerate(dict.fromkeys(prefixes))}
        token_ids, self._mask = pad_left(list(distinct), self._model.device)
        positions = (self._mask.cumsum(dim=-1) - 1).clamp_(min=0)
        logits, self._cache = self._model.forward(token_ids, self._mask, positions, None)
        self._positions = positions[:, -1]
        if len(distinct) == len(prefixes):
            return logits
        index = torch.tensor([distinct[prefix] for prefix in prefixes], device=self._model.device)
        self._cache = self._model.select(self._cache, index)
        self._mask, self._positions = self._mask[index], self._positions[index]
        return logits[index]

    def _decode(self) -> Tensor:
        """Read the newest token of every row; return the logits."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        self._positions = self._positions + 1
        logits, self._cache = self._model.forward(
            self._newest.unsqueeze(1), self._mask, self._positions.unsqueeze(1), self._cache
        )
        return logits

    def _sample(self, raw: Tensor) -> Tensor:
        logits = raw.clone()
        forbid(logits, [self._forbidden(row) for row in self.rows])
        if self._columns.is_penalized:
            penalize(logits, self._in_prompt, self._output_counts, self._columns)
        tokens = choose(logits, self._columns, [row.generator for row in self.rows])
        if self._columns.is_penalized:
            self._output_counts.scatter_add_(1, tokens.unsqueeze(1), torch.ones_like(self._output_counts[:, :1]))
        return tokens

    def _forbidden(self, row: Row) -> list[int]:
        if len(row.token_ids) >= row.params.min_tokens:
            return []
        return [token for token in row.delayed if token < self._model.vocab_size]

    def _logprob_entries(self, logits: Tensor) -> dict[int, LogprobEntry]:
        """Return the log probabilities of the newest tokens by position in the batch, for the rows that want them."""
        wanted = {index: row.params.logprobs for index, row in enumerate(self.rows) if row.params.logprobs is not None}
        if not wanted:
            return {}
        index = torch.tensor(list(wanted), device=self._model.device)
        count = min(max(wanted.values()), self._model.vocab_size)
        ids, logprobs, ranks = (part.tolist() for part in rank_tokens(logits[index], self._newest[index], count))
        return {
            position: self._entry(self.rows[position], ids[at][: 1 + top], logprobs[at], ranks[at])
            for at, (position, top) in enumerate(wanted.items())
        }

    def _entry(self, row: Row, ids: list[int], logprobs: list[float], rank: int) -> LogprobEntry:
        entry: LogprobEntry = {}
        for place, (token, logprob) in enumerate(zip(ids, logprobs[: len(ids)], strict=True)):
            if token not in entry:  # the chosen token comes first, and may be among the likeliest
                decoded = self._decode_token(row, token) if row.request.detokenize else None
                entry[token] = {"logprob": logprob, "rank": place or rank, "decoded_token": decoded}
        return entry

    def _decode_token(self, row: Row, token: int) -> str:
        """Return a token's text; a character spread over several tokens belongs to the one that completes it."""
        text = self._model.decode([token], False)
        if _REPLACEMENT not in text:
            return text
        context = row.token_ids[-_CHARACTER_TOKENS:]
        before = self._model.decode(context, False).rstrip(_REPLACEMENT)
        after = self._model.decode([*context, token], False)
        return after[len(before) :].strip(_REPLACEMENT)

    def _seed(self, row: Row) -> None:
        """Give a seeded row its generator; samples of one request get consecutive seeds, as in vLLM."""
        seed = row.params.seed
        if row.generator is None and seed is not None and seed != -1:
            row.generator = torch.Generator(self._model.device)
            row.generator.manual_seed((seed + row.index) % _SEED_RANGE)


def pad_left(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both int64 ``[B, longest]``, with the padding on the left."""
    longest = max(map(len, sequences))
    ids = [[_PADDING_ID] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
