"""Ten thousand requests, a tenth of them given up midway: memory, descriptors and threads must not grow (C10)."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.load import LEFT, Load
from tests.chaos.resources import Sampler, Usage
from tests.e2e.stack import Stack

REQUESTS = 10_000
WARM_UP = 500  # caches fill, allocators settle: what grows after them is a leak
CLIENTS = 16
MOST_GROWTH_MIB = 100.0
HOURS_S = 3600.0
REST_S = 5.0


def run(stack: Stack, folder: Path, body: Callable[[random.Random], dict[str, Any]]) -> int:
    """Send, sample, judge; writes ``soak.json`` into the folder, for :mod:`tests.chaos.plot`."""
    wanted = int(os.environ.get("SOAK_REQUESTS") or REQUESTS)
    warm = Load(stack.url, CLIENTS, seed=1, body=body, leaving=0.1, most=min(WARM_UP, wanted))
    warm.start()
    warm.join(HOURS_S)
    time.sleep(REST_S)
    load = Load(stack.url, CLIENTS, seed=2, body=body, leaving=0.1, most=wanted)
    sampler = Sampler(stack, every_s=2.0)
    load.start()
    load.join(HOURS_S)
    time.sleep(REST_S)
    samples = sampler.stop()
    outcomes = load.outcomes()
    folder.mkdir(parents=True, exist_ok=True)
    result = {"outcomes": dict(outcomes), "samples": [sample.as_dict() for sample in samples]}
    (folder / "soak.json").write_text(json.dumps(result, indent=1))
    problems = judge(samples, sum(outcomes.values()) - outcomes["answered"] - outcomes[LEFT])
    print(table(samples, dict(outcomes)), *problems, sep="\n")
    return 1 if problems else 0


def judge(samples: Sequence[Usage], failed: int) -> list[str]:
    """What is wrong, each in a line."""
    first, last = samples[0], samples[-1]
    problems = [f"{failed} requests failed"] if failed else []
    if last.rss_mib - first.rss_mib >= MOST_GROWTH_MIB:
        problems.append(f"memory grew by {last.rss_mib - first.rss_mib:.0f} MiB, {MOST_GROWTH_MIB:.0f} are allowed")
    for name, bound in (("descriptors", 40), ("threads", 20), ("shm_files", 2), ("processes", 0)):
        grown = last.as_dict()[name] - first.as_dict()[name]
        if grown > bound:
            problems.append(f"{name} grew by {grown:.0f}")
    return problems


def table(samples: Sequence[Usage], outcomes: dict[str, int]) -> str:
    """First, highest and last of everything, as Markdown."""
    columns = [sample.as_dict() for sample in samples]
    lines = ["| held | first | most | last |", "|---|---|---|---|"]
    for name in columns[0]:
        values = [column[name] for column in columns]
        lines.append(f"| {name} | {values[0]:.0f} | {max(values):.0f} | {values[-1]:.0f} |")
    lines += ["", "| requests | number |", "|---|---|"]
    return "\n".join(lines + [f"| {outcome} | {count} |" for outcome, count in outcomes.items()])
