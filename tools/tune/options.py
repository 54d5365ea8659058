"""The command line of ``python -m tools.tune``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.errors import UsageError
from tools.evaluate.service import ROOT

DESCRIPTION = """\
Search the service's settings for the highest tokens per second at a score that passes.

Each trial starts the service with settings from the search space, plays the evaluator several times and stops it.
What was interrupted goes on when the same command is given again.
"""


@dataclass(frozen=True)
class Options:
    """What to search, how long, and where the results go."""

    space: Path
    questions: Path
    out: Path
    threshold: float
    model: Path | None
    trials: int
    repeats: int
    limit: int | None
    ready_timeout_s: float
    total_timeout_s: float
    seed: int | None
    webhook: str | None
    python: Path


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line. Raises :class:`UsageError`."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tune", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("space", type=Path, help="search space (.toml or .json): docs/tools.md")
    parser.add_argument("questions", type=Path, help="question set: .jsonl, or the course's .docx")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the study: results, log files, what resumes it"
    )
    parser.add_argument("--threshold", type=float, required=True, help="mean ROUGE-L F1 that a setting must reach")
    parser.add_argument("--model", type=Path, help="folder of the model (default: MODEL_DIR in [fixed])")
    parser.add_argument("--trials", type=int, default=30, help="in all, resumed ones included (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="evaluations of one trial (%(default)s)")
    parser.add_argument("--limit", type=int, help="only the first questions")
    parser.add_argument(
        "--ready-timeout", dest="ready_timeout_s", type=float, default=180, help="seconds (%(default)s)"
    )
    parser.add_argument(
        "--total-timeout", dest="total_timeout_s", type=float, default=360, help="seconds (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of the sampler, for a search that can be repeated")
    parser.add_argument("--webhook", help="address that gets a POST with JSON when the search ends or stops")
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv" / "bin" / "python", help="the service's interpreter"
    )
    options = Options(**vars(parser.parse_args(arguments)))
    for name, value in (("trials", options.trials), ("repeats", options.repeats), ("limit", options.limit or 1)):
        if value < 1:
            raise UsageError(f"--{name} {value}: at least 1")
    if not 0 <= options.threshold <= 1:
        raise UsageError(f"--threshold {options.threshold:g}: 0 to 1")
    if not options.python.is_file():
        raise UsageError(f"--python {options.python}: no such file; `make venv` makes the service's environment")
    return options
