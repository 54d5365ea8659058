"""What the peers on a GPU are asked for."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import workload
from benchmarks.side_by_side import Job

TOKENS = 64


def questions(count: int, plain: bool = True, tokens: int = TOKENS) -> Callable[[int], workload.Workload]:
    """Makes so many questions with a number."""
    return lambda number: workload.make(count, tokens, number, plain)


def batch(what: str, count: int) -> Job:
    """A batch of exact length."""
    return Job(what, "tokens/s", TOKENS, questions(count))


def singles(what: str, count: int, clients: int) -> Job:
    """So many single prompts of exact length from so many clients."""
    return Job(what, "tokens/s", TOKENS, questions(count), clients)


def shape_jobs(shape: str) -> list[Job]:
    """What tells how well the engines of a model of this shape are set."""
    return [
        batch(f"batch of 1,024, {shape}", 1024),
        batch(f"batch of 4,096, {shape}", 4096),
        singles(f"256 clients, {shape}", 1024, clients=256),
    ]
