"""The command line of ``python -m tools.evaluate``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.errors import UsageError

DESCRIPTION = """\
Play the course's evaluator against a running service.

  run      ask all questions and report score, speed, latency, failures, and whether the score passes
  compare  two finished runs side by side
"""


@dataclass(frozen=True)
class RunOptions:
    """What ``run`` was asked for. ``concurrency`` None: as the health check says."""

    questions: Path
    url: str
    concurrency: int | None
    threshold: float | None
    tokenizer: Path | None
    out: Path | None
    limit: int | None
    max_new_tokens: int | None
    ready_timeout_s: float
    total_timeout_s: float
    worst: int
    plot: bool


@dataclass(frozen=True)
class CompareOptions:
    """What ``compare`` was asked for."""

    before: Path
    after: Path
    json_file: Path | None
    show: int


def parse(arguments: Sequence[str]) -> RunOptions | CompareOptions:
    """Read the command line; argparse ends the process with status 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="ask all questions and judge the answers"))
    _add_compare(commands.add_parser("compare", help="put two finished runs side by side"))
    options = vars(parser.parse_args(arguments))
    if options.pop("command") == "compare":
        return CompareOptions(**options)
    return _run_options(options)


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("questions", type=Path, help="question set: .jsonl, or the course's .docx")
    run.add_argument("--url", default="http://127.0.0.1:8000", help="the service (default %(default)s)")
    run.add_argument("--mode", default="auto", help="auto: as GET / says; batch: one request; or how many at a time")
    run.add_argument(
        "--threshold", type=float, help="pass from this mean ROUGE-L F1 on (default: all must be answered)"
    )
    run.add_argument("--tokenizer", type=Path, help="the model's folder (default: MODEL_DIR, or by name below models/)")
    run.add_argument("--out", type=Path, help="folder for summary.json, questions.jsonl and the plot")
    run.add_argument("--limit", type=int, help="only the first questions")
    run.add_argument("--max-new-tokens", type=int, help="sent with each request (default: the service decides)")
    run.add_argument(
        "--ready-timeout", dest="ready_timeout_s", type=float, default=180, help="seconds for health (%(default)s)"
    )
    run.add_argument(
        "--total-timeout", dest="total_timeout_s", type=float, default=360, help="seconds for all answers (%(default)s)"
    )
    run.add_argument("--worst", type=int, default=3, help="how many of the worst answers to show (%(default)s)")
    run.add_argument("--no-plot", dest="plot", action="store_false", help="no plot in the folder")


def _add_compare(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("before", type=Path, help="folder of the first run")
    compare.add_argument("after", type=Path, help="folder of the second run")
    compare.add_argument("--json", dest="json_file", type=Path, help="file for the comparison as JSON")
    compare.add_argument("--show", type=int, default=5, help="how many of the largest changes to show (%(default)s)")


def _run_options(options: dict[str, object]) -> RunOptions:
    mode = str(options.pop("mode"))
    if options["tokenizer"] is None and os.environ.get("MODEL_DIR", "").strip():
        options["tokenizer"] = Path(os.environ["MODEL_DIR"])
    options["url"] = str(options["url"]).rstrip("/")
    parsed = RunOptions(concurrency=_concurrency(mode), **options)  # type: ignore[arg-type] # argparse made the types
    if parsed.limit is not None and parsed.limit < 1:
        raise UsageError(f"--limit {parsed.limit}: at least 1")
    if parsed.threshold is not None and not 0 <= parsed.threshold <= 1:
        raise UsageError(f"--threshold {parsed.threshold:g}: 0 to 1")
    if not parsed.url.startswith(("http://", "https://")):
        raise UsageError(f"--url {parsed.url}: must begin with http:// or https://")
    return parsed


def _concurrency(mode: str) -> int | None:
    if mode == "auto":
        return None
    if mode == "batch":
        return 0
    if mode.isdecimal() and 1 <= int(mode) <= 10_000:
        return int(mode)
    raise UsageError(f"--mode {mode}: auto, batch, or a number from 1 to 10000")
