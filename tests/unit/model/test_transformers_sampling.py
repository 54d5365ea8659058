"""Penalties, restrictions and draws against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from llm_model.engines import transformers_sampling as sampling
from llm_model.parameters import SamplingParameters

CPU = torch.device("cpu")


def columns(*params: dict[str, Any], vocab_size: int = 4) -> sampling.SamplingColumns:
    return sampling.SamplingColumns.of([SamplingParameters(**fields) for fields in params], vocab_size, CPU)


def logits_of(*probabilities: float) -> list[float]:
    return [math.log(probability) for probability in probabilities]


def survivors(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def test_tokens_are_counted_row_by_row() -> None:
    counts = sampling.count_tokens([[1, 1, 3], [], [0]], 4, CPU)
    assert counts.tolist() == [[0, 2, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_penalties_follow_their_definitions() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0]])
    in_prompt = torch.tensor([[True, False, False, False]])
    output_counts = torch.tensor([[0, 3, 1, 0]], dtype=torch.int32)
    table = columns({"repetition_penalty": 2.0, "frequency_penalty": 0.1, "presence_penalty": 0.5})
    sampling.penalize(logits, in_prompt, output_counts, table)
    # prompt only: 2/2. Generated thrice: -1*2 - 3*0.1 - 0.5. Generated once: 0.5/2 - 0.1 - 0.5. Never seen: as it was.
    assert logits.tolist() == [pytest.approx([1.0, -2.8, -0.35, 3.0])]


def test_neutral_row_beside_a_penalized_one_keeps_its_logits() -> None:
    logits = torch.tensor([[2.0, -1.0], [2.0, -1.0]])
    seen = torch.ones(2, 2, dtype=torch.bool)
    counts = torch.ones(2, 2, dtype=torch.int32)
    sampling.penalize(logits, seen, counts, columns({"repetition_penalty": 2.0}, {}, vocab_size=2))
    assert logits.tolist() == [[1.0, -2.0], [2.0, -1.0]]


def test_forbidden_tokens_become_impossible_in_their_row_only() -> None:
    logits = torch.zeros(2, 3)
    sampling.forbid(logits, [[0, 2], []])
    assert survivors(logits) == [[1], [0, 1, 2]]


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": -1}, [0, 1, 2, 3]),
        ({"top_k": 99}, [0, 1, 2, 3]),
        ({"top_p": 0.75}, [0, 1]),  # 0.5 + 0.3 covers it
        ({"top_p": 0.85}, [0, 1, 2]),
        ({"top_p": 1e-6}, [0]),  # never empty
        ({"min_p": 0.4}, [0, 1]),  # at least 0.4 * 0.5
        ({"top_k": 3, "top_p": 0.6}, [0, 1]),  # of the three left, 0.5/0.95 is not yet 0.6
        ({"min_p": 1.0}, [0]),
    ],
)
def test_restrictions_keep_the_likeliest(params: dict[str, Any], kept: list[int]) -> None:
    logits = torch.tensor([logits_of(0.5, 0.3, 0.15, 0.05)])
    sampling.restrict(logits, columns(params))
    assert survivors(logits) == [kept]


def test_restrictions_are_each_rows_own() -> None:
    logits = torch.tensor([logits_of(0.1, 0.2, 0.7)] * 2)
    sampling.restrict(logits, columns({"top_k": 1}, {"top_k": 2}, vocab_size=3))
    assert survivors(logits) == [[2], [1, 2]]


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    torch.manual_seed(1)
    drawn = sampling.draw(torch.tensor([logits_of(0.6, 0.3, 0.1)] * 20_000), [None] * 20_000)
    shares = (drawn.bincount(minlength=3) / len(drawn)).tolist()
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_seeded_row_draws_the_same_beside_any_neighbours() -> None:
    row = torch.randn(1, 1000)

    def draw_beside(neighbours: int) -> list[int]:
        generator = torch.Generator().manual_seed(7)
        logits = torch.cat([torch.randn(neighbours, 1000), row])
        return [int(sampling.draw(logits, [None] * neighbours + [generator])[-1]) for _ in range(20)]

    assert draw_beside(0) == draw_beside(3)


def test_impossible_token_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, float("-inf")]] * 10_000)
    assert sampling.draw(logits, [None] * 10_000).max() == 0


def test_greedy_rows_take_the_likeliest_and_random_ones_do_not_always() -> None:
    logits = torch.tensor([[0.0, 0.1, 0.0]] * 200)
    table = columns(*[{"temperature": 0.0}, {"temperature": 1.0}] * 100, vocab_size=3)
    chosen = sampling.choose(logits, table, [None] * 200)
    assert set(chosen[0::2].tolist()) == {1}
    assert set(chosen[1::2].tolist()) == {0, 1, 2}


def test_tiny_temperature_is_raised_so_that_nothing_overflows() -> None:
    chosen = sampling.choose(torch.tensor([[1e4, -1e4]]), columns({"temperature": 1e-30}, vocab_size=2), [None])
    assert chosen.tolist() == [0]


def test_logprobs_are_those_of_the_raw_logits_with_ranks() -> None:
    logits = torch.tensor([logits_of(0.2, 0.5, 0.3), logits_of(0.2, 0.5, 0.3)])
    ids, logprobs, ranks = sampling.rank_tokens(logits, torch.tensor([0, 1]), 2)
    assert ids.tolist() == [[0, 1, 2], [1, 1, 2]]
    assert logprobs.exp().tolist() == [pytest.approx([0.2, 0.5, 0.3]), pytest.approx([0.5, 0.5, 0.3])]
    assert ranks.tolist() == [3, 1]


def test_columns_know_what_can_be_skipped() -> None:
    plain, full = columns({"temperature": 0.0}), columns({"top_k": 5, "presence_penalty": 0.1})
    assert (plain.is_random, plain.is_penalized, plain.is_restricted) == (False, False, False)
    assert (full.is_random, full.is_penalized, full.is_restricted) == (True, True, True)
