"""`python -m tests.chaos chaos|soak`: see `make chaos` and `make soak`.

Settings: CHAOS_MINUTES (5), CHAOS_SEED (the time), MODEL_DIR (the course's model, else the bundled one).
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos import soak, trial
from tests.chaos.faults import FAULTS
from tests.chaos.load import Load
from tests.e2e.stack import ROOT, Stack

TWO_ENGINES = {
    "ENGINES_PER_GPU": "2",
    "TRITON_MAX_RESTARTS": "1000",
    "ENGINE_HANG_S": "10",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "WATCHDOG_PROBE_S": "10",
    "WATCHDOG_STALL_S": "60",
}
# The cache's memory becomes resident when it is first written to: of this size in the warm-up, else for hours.
SMALL_CACHE = '{"num_gpu_blocks_override": 1024}'


def model_dir() -> Path:
    """MODEL_DIR, the course's model, or the bundled one that `make serve` has fetched."""
    shared = Path(os.environ.get("SHARED_DIR") or ROOT.parent / "shared")
    choices = [Path(os.environ.get("MODEL_DIR") or "-"), shared / "models/course-qa", ROOT / "models/bundled__smollm2"]
    for folder in choices:
        if (folder / "config.json").is_file():
            return folder
    raise SystemExit("no model: set MODEL_DIR, or run `make serve` once")


def question(chance: random.Random) -> dict[str, Any]:
    """One question, or a few; no two alike."""
    texts = [f"{chance.randrange(10**6)}: 什么是线程块？" for _ in range(chance.choice((1, 1, 1, 4)))]
    return {"prompt": texts[0] if len(texts) == 1 else texts, "max_new_tokens": chance.choice((8, 32, 64))}


@contextmanager
def service(**settings: str) -> Iterator[Stack]:
    """A service for the trial; its log stays where the line says."""
    log = Path(tempfile.mkdtemp(prefix="trial-")) / "service.log"
    print(f"log: {log}", flush=True)
    stack = Stack.start({"MODEL_DIR": str(model_dir()), "LOG_LEVEL": "WARNING", **settings}, log)
    try:
        yield stack
    finally:
        stack.stop()


def chaos() -> int:
    """Random faults under load."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time())
    seconds = 60 * float(os.environ.get("CHAOS_MINUTES") or 5)
    print(f"CHAOS_SEED={seed}, {seconds:.0f} s of faults", flush=True)
    with service(**TWO_ENGINES) as stack:
        load = Load(stack.url, clients=8, seed=seed, body=question, leaving=0.05)
        result = trial.run(stack, FAULTS, seed, load, seconds)
    print(trial.table(result))
    return 0 if result.is_good else 1


def main(arguments: list[str]) -> int:
    """Run one trial and return the exit status."""
    match arguments:
        case ["chaos"]:
            return chaos()
        case ["soak", folder]:
            with service(VLLM_ENGINE_ARGS=SMALL_CACHE) as stack:
                return soak.run(stack, Path(folder), question)
        case _:
            print("usage: python -m tests.chaos chaos | soak FOLDER", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
