"""`python -m benchmarks cpu|gpu [--url URL --model NAME] [--rounds N] [--repeats N] [--results FOLDER]`.

cpu: targets P5 to P7 (`make bench`). gpu: P1 to P4 and P8 to P10, on a machine with NVIDIA GPUs. Everything is started
and stopped by it; nothing else should run meanwhile. Writes a JSON file and a Markdown table, dated.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import cpu, gpu, machine
from benchmarks.errors import BenchmarkError
from benchmarks.peers import default_model
from benchmarks.results import Report
from benchmarks.side_by_side import Plan

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suite", choices=("cpu", "gpu"))
    parser.add_argument("--url", help="another server with OpenAI's API, to be measured too")
    parser.add_argument("--model", default="", help="the model's name there")
    parser.add_argument("--rounds", type=int, default=2, help="how often each program is started")
    parser.add_argument("--repeats", type=int, default=2, help="measured batches a start")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--note", default="", help="what should stand beside the figures")
    options = parser.parse_args()
    today = datetime.now(tz=timezone.utc).strftime("%Y-%m-%d")
    plan = Plan(options.rounds, options.repeats)
    report = Report(
        f"{options.suite.upper()} benchmark, {today}", machine.describe(), {"model": str(default_model().name)}
    )
    others = [cpu.Server(options.url, options.model)] if options.url else []
    began = time.monotonic()
    try:
        (cpu if options.suite == "cpu" else gpu).run(report, plan, others)
    except BenchmarkError as exc:
        print(exc, file=sys.stderr)
        return 1
    report.conditions |= {
        "took": f"{time.monotonic() - began:.0f} s",
        **({"note": options.note} if options.note else {}),
    }
    file = report.write(options.results, f"{today}-{options.suite}")
    print(report.markdown(), f"written: {file}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
