"""Peers in turn on the same machine: never two at a time, the order turned round from one round to the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import PeerFailed
from benchmarks.peers import Peer
from benchmarks.workload import Workload

Make = Callable[[int], Workload]


@dataclass(frozen=True)
class Plan:
    """``rounds`` starts of every peer, and in each, after a warm-up, ``repeats`` measured batches."""

    rounds: int = 2
    repeats: int = 2


def batches(peers: Sequence[Callable[[], Peer]], make: Make, plan: Plan) -> dict[str, list[float]]:
    """Seconds a batch by the peer's name; ``make`` gives the workload with a number, equal for all peers.

    A peer that fails in one round is left out of the following ones, with its reason printed; none is an error.
    """
    found: dict[str, list[float]] = {}
    order: list[Callable[[], Peer]] = list(peers)
    for turn in range(plan.rounds):
        for start in list(order if turn % 2 == 0 else order[::-1]):
            try:
                name, seconds = _one(start(), make, plan, turn)
            except PeerFailed as exc:
                print(f"left out: {exc}", flush=True)
                order.remove(start)
                continue
            found.setdefault(name, []).extend(seconds)
    return found


def _one(peer: Peer, make: Make, plan: Plan, turn: int) -> tuple[str, list[float]]:
    numbers = itertools.count(100 * turn)
    with peer:
        peer.batch_s(make(next(numbers)))  # warm-up: allocations, first steps of this shape
        seconds = [peer.batch_s(make(next(numbers))) for _ in range(plan.repeats)]
    print(f"  {peer.name}: {', '.join(f'{one:.2f} s' for one in seconds)}", flush=True)
    return peer.name, seconds


def rates(seconds: dict[str, list[float]], amount: float) -> dict[str, Any]:
    """Seconds a batch → ``amount`` a second."""
    return {name: [amount / one for one in found] for name, found in seconds.items()}
