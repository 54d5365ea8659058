"""Peers in turn on the same machine: never two at a time, the order turned round from one round to the next."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.errors import PeerFailed
from benchmarks.peers import Peer, Server
from benchmarks.results import Figure, Report
from benchmarks.workload import Workload


@dataclass(frozen=True)
class Plan:
    """``rounds`` starts of every peer, and in each, after a warm-up, ``repeats`` measurements of each job."""

    rounds: int = 2
    repeats: int = 2


Part = Callable[[Report, Plan, Sequence[Server]], None]
"""A part of the GPU's benchmark; the servers are somebody else's, to be measured too."""


@dataclass(frozen=True)
class Job:
    """One thing to be measured: ``make`` gives the questions with a number, equal for all peers.

    All at once, or one after the other by each of so many ``clients``, which only servers can be asked for.
    ``per_prompt`` is what a prompt counts in ``unit``: its tokens, or 1.
    """

    what: str
    unit: str
    per_prompt: int
    make: Callable[[int], Workload]
    clients: int = 0
    higher: ClassVar[bool] = True

    def value(self, peer: Any, number: int) -> float:
        """What the peer does in a second."""
        work = self.make(number)
        seconds = peer.clients_s(work, self.clients)[0] if self.clients else peer.batch_s(work)
        return len(work.questions) * self.per_prompt / float(seconds)

    def suits(self, peer: Any) -> bool:
        """Whether the peer can be asked for it."""
        return not self.clients or hasattr(peer, "clients_s")


class Latency(Job):
    """How long a client waits for an answer: the median of all, in milliseconds."""

    higher = False

    def value(self, peer: Any, number: int) -> float:
        """Of one batch of questions."""
        return float(1000 * statistics.median(peer.clients_s(self.make(number), self.clients)[1]))


Found = dict[str, dict[str, list[float]]]
"""Values by the job's name, then by the peer's."""


def measure(peers: Sequence[Callable[[], Peer]], jobs: Sequence[Job], plan: Plan) -> Found:
    """Ask every peer for every job that suits it.

    A peer that fails in one round is left out of the following ones, with its reason printed; none is an error.
    """
    found: Found = {job.what: {} for job in jobs}
    order: list[Callable[[], Peer]] = list(peers)
    for turn in range(plan.rounds):
        for start in list(order if turn % 2 == 0 else order[::-1]):
            if not _one_start(start, jobs, plan, turn, found):
                order.remove(start)
    return found


def report_all(report: Report, jobs: Sequence[Job], found: Found) -> dict[str, dict[str, Figure]]:
    """Note all figures; returns them by the job's name, then by the peer's."""
    return {
        job.what: {
            peer: report.add(job.what, peer, job.unit, values, job.higher) for peer, values in found[job.what].items()
        }
        for job in jobs
    }


def _one_start(start: Callable[[], Peer], jobs: Sequence[Job], plan: Plan, turn: int, found: Found) -> bool:
    try:
        with start() as peer:
            _ask(peer, jobs, plan, turn, found)
    except PeerFailed as exc:
        print(f"left out: {exc}", flush=True)
        return False
    return True


def _ask(peer: Peer, jobs: Sequence[Job], plan: Plan, turn: int, found: Found) -> None:
    for job in filter(lambda job: job.suits(peer), jobs):
        numbers = itertools.count(100 * turn)
        job.value(peer, next(numbers))  # warm-up: allocations, first steps of this shape
        values = [job.value(peer, next(numbers)) for _ in range(plan.repeats)]
        found[job.what].setdefault(peer.name, []).extend(values)
        print(f"  {peer.name}: {job.what}: {', '.join(f'{one:,.0f}' for one in values)} {job.unit}", flush=True)
