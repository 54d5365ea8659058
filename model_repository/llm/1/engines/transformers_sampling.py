"""From logits to tokens: penalties, restrictions, sampling and log probabilities of one batch step.

Pure functions on tensors; definitions and their order are those of vLLM's sampler. ``B`` is the number of rows, ``V``
the size of the vocabulary. Logits are float32 ``[B, V]``; functions that say so change them in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parameters import SamplingParameters

_LOWEST_TEMPERATURE = 0.01  # vLLM raises smaller ones to this, since dividing by them overflows
_NOTHING = float("-inf")


@dataclass(frozen=True)
class SamplingColumns:
    """The sampling parameters of a batch as columns, each ``[B, 1]`` on the model's device.

    ``temperature`` is 0 for greedy rows. ``top_k`` is ``V`` for rows without that limit.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    repetition: Tensor
    frequency: Tensor
    presence: Tensor
    is_random: bool
    is_penalized: bool
    is_restricted: bool

    @classmethod
    def of(cls, params: Sequence[SamplingParameters], vocab_size: int, device: torch.device) -> SamplingColumns:
        """Build the columns for rows with these parameters."""

        def column(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1)

        return cls(
            temperature=column([max(p.temperature, _LOWEST_TEMPERATURE) if p.temperature else 0.0 for p in params]),
            top_k=column([min(p.top_k, vocab_size) if p.top_k > 0 else vocab_size for p in params], torch.int64),
            top_p=column([p.top_p for p in params]),
            min_p=column([p.min_p for p in params]),
            repetition=column([p.repetition_penalty for p in params]),
            frequency=column([p.frequency_penalty for p in params]),
            presence=column([p.presence_penalty for p in params]),
            is_random=any(p.temperature > 0 for p in params),
            is_penalized=any(is_penalized(p) for p in params),
            is_restricted=any(p.top_k > 0 or p.top_p < 1 or p.min_p > 0 for p in params),
        )


def is_penalized(params: SamplingParameters) -> bool:
    """Whether any of the three penalties changes the logits of a row."""
    return params.repetition_penalty != 1 or params.frequency_penalty != 0 or params.presence_penalty != 0


def count_tokens(sequences: Sequence[Sequence[int]], vocab_size: int, device: torch.device) -> Tensor:
    """Return how often each token occurs in each sequence, int32 ``[B, V]``. There is no padding to count."""
    rows = [row for row, sequence in enumerate(sequences) for _ in sequence]
    columns = [token for sequence in sequences for token in sequence]
    counts = torch.zeros(len(sequences), vocab_size, dtype=torch.int32, device=device)
    index = (
        torch.tensor(rows, dtype=torch.int64, device=device),
        torch.tensor(columns, dtype=torch.int64, device=device),
    )
    return counts.index_put_(index, counts.new_ones(()), accumulate=True)


def penalize(logits: Tensor, in_prompt: Tensor, output_counts: Tensor, columns: SamplingColumns) -> None:
    """Apply the three penalties in place.

    ``in_prompt`` (bool ``[B, V]``) marks the prompt's tokens, ``output_counts`` (int32 ``[B, V]``) counts those
    generated. Repetition divides positive and multiplies negative logits of every token seen in either; frequency and
    presence subtract for generated tokens only, the first once for each occurrence.
    """
    in_output = output_counts > 0
    factor = torch.where(in_prompt | in_output, columns.repetition, 1.0)
    logits.mul_(torch.where(logits > 0, 1.0 / factor, factor))
    logits.sub_(columns.frequency * output_counts)
    logits.sub_(columns.presence * in_output)


def forbid(logits: Tensor, tokens_by_row: Sequence[Sequence[int]]) -> None:
    """Make the given tokens of each row impossible, in place."""
    for row, tokens in enumerate(tokens_by_row):
        if tokens:
            logits[row, list(tokens)] = _NOTHING


def restrict(logits: Tensor, columns: SamplingColumns) -> None:
    """Keep only the candidates that ``min_p``, ``top_k`` and ``top_p`` leave, in place; at least one a row.

    ``logits`` are already divided by the temperature. Tokens as likely as the ``top_k``-th stay, as in vLLM.
    """
    probabilities = logits.softmax(dim=-1)
    logits.masked_fill_(probabilities < probabilities.amax(dim=-1, keepdim=True) * columns.min_p, _NOTHING)
    ordered, order = logits.sort(dim=-1)
    weakest = ordered.gather(1, ordered.shape[1] - columns.top_k)
    ordered.masked_fill_(ordered < weakest, _NOTHING)
    outside = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - columns.top_p
    outside[:, -1] = False
    logits.scatter_(1, order, ordered.masked_fill_(outside, _NOTHING))


def draw(logits: Tensor, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Draw one token a row from the softmax of ``logits``; return int64 ``[B]``.

    A row with a generator depends on that generator alone, not on its neighbours: dividing the probabilities by
    exponential noise and taking the largest is a draw from them, with the row's own noise.
    """
    noise = torch.empty_like(logits).exponential_()
    for row, generator in enumerate(generators):
        if generator is not None:
            noise[row].exponential_(generator=generator)
    noise.clamp_min_(torch.finfo(noise.dtype).tiny)  # 0 / 0 would win every comparison
    return logits.softmax(dim=-1).div_(noise).argmax(dim=-1)


def choose(logits: Tensor, columns: SamplingColumns, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Return the next token of each row, int64 ``[B]``: the likeliest of greedy rows, a drawn one of the others."""
    likeliest = logits.argmax(dim=-1)
    if not columns.is_random:
        return likeliest
    is_greedy = columns.temperature == 0
    scaled = logits / torch.where(is_greedy, 1.0, columns.temperature)
    if columns.is_restricted:
        restrict(scaled, columns)
    return torch.where(is_greedy.squeeze(1), likeliest, draw(scaled, generators))


def rank_tokens(logits: Tensor, chosen: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids and log probabilities ``[B, 1 + count]`` of the chosen and the ``count`` likeliest tokens, and ranks.

    ``logits`` are the model's own, before penalties and temperature (vLLM's ``raw_logprobs``). The rank ``[B]`` of the
    chosen token is 1 for the likeliest.
    """
    logprobs = logits.log_softmax(dim=-1)
    own = logprobs.gather(1, chosen.unsqueeze(1))
    best, best_ids = logprobs.topk(count, dim=-1)
    ids = torch.cat([chosen.unsqueeze(1), best_ids], dim=1)
    return ids, torch.cat([own, best], dim=1), (logprobs >= own).sum(dim=-1)
