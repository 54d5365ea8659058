"""Random faults under steady load: one after the other, each after the service is whole again."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from tests.chaos.faults import Fault
from tests.chaos.load import LEFT, LOST, UNANSWERED, Load
from tests.chaos.resources import Usage, usage
from tests.e2e.stack import Stack, is_running

WHOLE_S = 180.0
AFTERMATH_S = 30.0


@dataclass(frozen=True)
class Done:
    """One fault; ``recovery_s`` until all engines were ready again and a question was answered."""

    name: str
    at: float
    recovery_s: float


@dataclass
class Trial:
    """What happened."""

    done: list[Done] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    excused: int = 0
    before: Usage | None = None
    after: Usage | None = None

    @property
    def unexcused(self) -> int:
        """Requests that failed where none may."""
        fine = self.outcomes["answered"] + self.outcomes[LEFT] + self.excused
        return sum(self.outcomes.values()) - fine

    @property
    def leaks(self) -> list[str]:
        """What is more at the end than at the beginning, beyond what comes and goes."""
        assert self.before is not None
        assert self.after is not None
        bounds = {"processes": 0, "descriptors": 60, "shm_files": 4, "threads": 40}
        grown = {name: self.after.as_dict()[name] - self.before.as_dict()[name] for name in bounds}
        return [f"{name} +{grown[name]:.0f}" for name, bound in bounds.items() if grown[name] > bound]

    @property
    def is_good(self) -> bool:
        return bool(self.done) and self.unexcused == 0 and not self.leaks


def run(
    stack: Stack, faults: Sequence[Fault], seed: int, load: Load, seconds: float = 0.0, rounds: int | None = None
) -> Trial:
    """Harm the service for ``seconds``, or with each fault ``rounds`` times; then let it come to rest.

    All faults come once before any comes again.
    """
    trial, chance, begun = Trial(before=usage(stack, time.monotonic())), random.Random(seed), time.monotonic()
    load.start()
    excuses: list[tuple[float, float]] = []
    try:
        for fault in _series(faults, chance, rounds):
            if rounds is None and time.monotonic() - begun > seconds:
                break
            time.sleep(chance.uniform(2, 6))
            at = time.monotonic()
            victims = fault.harm(stack)
            if not victims:
                continue
            wait_whole(stack, victims)
            trial.done.append(Done(fault.name, at - begun, time.monotonic() - at))
            print(f"{at - begun:6.0f} s  {fault.name}: whole after {time.monotonic() - at:.1f} s", flush=True)
            if fault.loses_connections:
                excuses.append((at, time.monotonic()))
    finally:
        load.finish()
    trial.outcomes = load.outcomes()
    trial.excused = sum(
        ending.outcome == LOST and any(ending.begun <= end and ending.ended >= start for start, end in excuses)
        for ending in load.endings
    )
    trial.after = at_rest(stack, trial)
    return trial


def _series(faults: Sequence[Fault], chance: random.Random, rounds: int | None) -> Iterator[Fault]:
    for _ in itertools.count() if rounds is None else range(rounds):
        yield from chance.sample(list(faults), len(faults))


def wait_whole(stack: Stack, victims: Sequence[int]) -> None:
    """Until the victims are gone, every engine is ready, nothing is being restarted and a question is answered."""
    stack.wait_for(lambda: not any(map(is_running, victims)), WHOLE_S, "rid of the harmed processes")
    time.sleep(1)  # the fault has to be seen first: what is asked right after it may be told the state before it
    stack.wait_for(lambda: is_whole(stack), WHOLE_S, "whole again")


def is_whole(stack: Stack) -> bool:
    """Whether the service answers with all its engines, each of which has been seen to work."""
    try:
        with httpx.Client(base_url=stack.url, timeout=10) as client:
            engines = client.get("/info").json().get("engines") or []
            states = {engine["state"] for engine in engines}
            working = all(
                engine["seconds_since_step"] is not None and engine["seconds_since_step"] < 5 for engine in engines
            )
            return client.get("/").status_code == 200 and states == {"ready"} and working
    except (httpx.HTTPError, ValueError, KeyError):
        return False


def at_rest(stack: Stack, trial: Trial) -> Usage:
    """What is held once the last connections are closed."""
    deadline = time.monotonic() + AFTERMATH_S
    while True:
        trial.after = usage(stack, time.monotonic())
        if not trial.leaks or time.monotonic() > deadline:
            return trial.after
        time.sleep(1)


def table(trial: Trial) -> str:
    """The result as Markdown."""
    lines = ["| fault | times | recovery (s): least, median, most |", "|---|---|---|"]
    for name in sorted({done.name for done in trial.done}):
        times = sorted(done.recovery_s for done in trial.done if done.name == name)
        spread = f"{times[0]:.1f}, {times[len(times) // 2]:.1f}, {times[-1]:.1f}"
        lines.append(f"| {name} | {len(times)} | {spread} |")
    lines += ["", "| requests | number |", "|---|---|", f"| sent | {sum(trial.outcomes.values())} |"]
    outcomes = {UNANSWERED: 0, **trial.outcomes}
    lines += [f"| {outcome} | {count} |" for outcome, count in sorted(outcomes.items(), key=lambda item: -item[1])]
    lines += [
        f"| of these lost with a killed gateway | {trial.excused} |",
        f"| **failed where none may** | {trial.unexcused} |",
    ]
    lines += ["", "| held | before | after |", "|---|---|---|"]
    assert trial.before is not None
    assert trial.after is not None
    before, after = trial.before.as_dict(), trial.after.as_dict()
    lines += [f"| {name} | {before[name]:.0f} | {after[name]:.0f} |" for name in before if name != "seconds"]
    return "\n".join([*lines, "", f"leaks: {', '.join(trial.leaks) or 'none'}"])
