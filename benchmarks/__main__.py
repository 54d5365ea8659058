"""`python -m benchmarks cpu` (targets P5 to P7; `make bench`) or `gpu` (P1 to P4, P8 to P10, and how it scales).

The GPU's takes parts too (`--part`), for machines where several can be measured at once. Everything is started and
stopped by it; nothing else should run on the same cores and GPUs meanwhile. Writes a JSON file and a Markdown table,
dated.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import cpu, gpu, machine
from benchmarks.errors import BenchmarkError
from benchmarks.peers import Server, default_model
from benchmarks.results import Report
from benchmarks.side_by_side import Plan
from runtime.limits import raise_open_files

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Parse the command line, measure, write. What has been measured is written when it is stopped or fails, too."""
    raise_open_files()  # thousands of clients have a connection each
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # the peers are stopped then
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suite", choices=("cpu", "gpu"))
    parser.add_argument("--part", action="append", choices=tuple(gpu.BY_NAME), help="of the GPU's; may be repeated")
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
    others = [Server(options.url, options.model)] if options.url else []
    began = time.monotonic()
    status, finished = 0, False
    try:
        if options.suite == "cpu":
            cpu.run(report, plan, others)
        else:
            gpu.run(report, plan, others, options.part or tuple(gpu.PARTS))
        finished = True
    except BenchmarkError as exc:
        print(exc, file=sys.stderr)
        status = 1
    finally:
        report.conditions |= {
            "took": f"{time.monotonic() - began:.0f} s",
            **({"note": options.note} if options.note else {}),
        }
        # Under another name, so that no whole result is lost to it.
        parts = [today, options.suite, *(options.part or []), *([] if finished else ["unfinished"])]
        file = report.write(options.results, "-".join(parts))
        print(report.markdown(), f"written: {file}", sep="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
