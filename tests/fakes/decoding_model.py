"""A language model of a few lines for the transformers engine: a rule says which token follows a sequence."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_model.engines.transformers_queue import BatchLimits
from llm_model.engines.transformers_row import EndTokens

VOCAB_SIZE = 64
EOS, SECOND_EOS = 2, 3
POISON, FATAL_POISON = 60, 61  # prompts that hold one of these make a batch fail, or the engine die

Rule = Callable[[Sequence[int]], int]


def count_up(sequence: Sequence[int]) -> int:
    """The next number, from 10 to 49 and round again: never an end token."""
    return 10 + (sequence[-1] - 9) % 40


def mix(sequence: Sequence[int]) -> int:
    """A number between 10 and 49 that depends on every token of the sequence and its place."""
    return 10 + sum((place + 3) * (token + 1) ** 2 for place, token in enumerate(sequence)) % 40


@dataclass
class FakeCache:
    """All tokens read so far and their positions, ``[B, T]`` each."""

    token_ids: Tensor
    positions: Tensor


class FakeModel:
    """Follows ``rule``; the wanted token has logit 6, the others from 4 downwards with their number.

    It refuses what a real model would answer with nonsense: positions that do not count the attended tokens. ``gate``
    holds the forward passes while it is not set. ``prefills`` has the shape of each first pass.
    """

    def __init__(self, rule: Rule = mix, max_rows: int = 4, max_model_len: int = 100) -> None:
        self.vocab_size = VOCAB_SIZE
        self.device = torch.device("cpu")
        self.ends = EndTokens(EOS, frozenset((SECOND_EOS,)))
        self.limits = BatchLimits(rows=max_rows, prefill_tokens=1000, cache_tokens=10_000)
        self.max_model_len = max_model_len
        self.dtype = "float32"
        self.gate = threading.Event()
        self.gate.set()
        self.steps = 0
        self.prefills: list[tuple[int, int]] = []
        self.tidied = 0
        self._rule = rule

    def forward(self, token_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        self.gate.wait(10)
        self.steps += 1
        if cache is None:
            self.prefills.append((token_ids.shape[0], token_ids.shape[1]))
            cache = FakeCache(token_ids, positions)
        else:
            cache.token_ids = torch.cat([cache.token_ids, token_ids], dim=1)
            cache.positions = torch.cat([cache.positions, positions], dim=1)
        logits = torch.stack([self._logits(*row) for row in zip(cache.token_ids, mask, cache.positions, strict=True)])
        return logits, cache

    def _logits(self, token_ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        attended = mask.bool()
        sequence = token_ids[attended].tolist()
        assert positions[attended].tolist() == list(range(len(sequence)))
        if FATAL_POISON in sequence:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if POISON in sequence:
            raise ValueError("poisoned")
        logits = 4 - 0.01 * torch.arange(self.vocab_size, dtype=torch.float32)
        logits[self._rule(sequence)] = 6.0
        return logits

    def select(self, cache: Any, rows: Tensor) -> Any:
        return FakeCache(cache.token_ids[rows], cache.positions[rows])

    def decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        """Each token is a letter, from ``A`` for 10 on; special ones are ``<2>``."""
        parts = [chr(ord("A") + token - 10) if token >= 10 else f"<{token}>" for token in token_ids]
        return "".join(part for part in parts if not (skip_special_tokens and part.startswith("<")))

    def free_cached_memory(self) -> None:
        self.tidied += 1


def continuation(prompt: Sequence[int], length: int, rule: Rule = mix) -> list[int]:
    """The tokens that follow a prompt by the rule alone."""
    sequence = list(prompt)
    for _ in range(length):
        sequence.append(rule(sequence))
    return sequence[len(prompt) :]


async def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until the condition holds; fail after the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)
