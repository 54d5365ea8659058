"""``python -m tools.evaluate run|compare``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.console import run, say
from tools.evaluate import compare, report
from tools.evaluate.options import CompareOptions, RunOptions, parse
from tools.evaluate.run import evaluate
from tools.results import write_json


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; 0 passed, 1 not passed."""
    options = parse(arguments)
    return _compare(options) if isinstance(options, CompareOptions) else _run(options)


def _run(options: RunOptions) -> int:
    done = evaluate(options)
    print(report.text(done.summary, done.judged, options.worst))
    if options.out:
        report.write(options.out, done.summary, done.judged, options.plot)
        say(f"written: {options.out}")
    return 0 if done.summary.passed else 1


def _compare(options: CompareOptions) -> int:
    compared = compare.compare(compare.Run.read(options.before), compare.Run.read(options.after))
    print(compare.text(compared, options.show))
    if options.json_file:
        write_json(options.json_file, compared)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
