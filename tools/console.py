"""What the tools have in common on a terminal: exit statuses, lines on standard error, progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tools.errors import ToolError


def say(text: str) -> None:
    """Write one line about the work to standard error at once; results go to standard output."""
    print(text, file=sys.stderr, flush=True)


def progress(total: int, what: str, unit: str) -> Any:
    """Return a tqdm bar over ``total`` steps; without a terminal, a line every ten seconds."""
    from tqdm import tqdm

    # A bar that is redrawn ten times a second fills a log file.
    return tqdm(total=total, desc=what, unit=unit, file=sys.stderr, mininterval=0.1 if sys.stderr.isatty() else 10.0)


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors meant for the user become one line."""
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except ToolError as exc:
        say(f"error: {exc}")
        return exc.status
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table for a terminal: the first column to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
