"""`python -m benchmarks.plot RESULT.json`: medians with their spread as bars, into RESULT.png. Needs matplotlib."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path


def main(source: Path) -> int:
    """One panel for each thing that was measured."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figures = json.loads(source.read_text(encoding="utf-8"))["figures"]
    whats = list(dict.fromkeys(figure["what"] for figure in figures))
    sheet, panels = pyplot.subplots(len(whats), 1, figsize=(9, 2 * len(whats)), layout="constrained", squeeze=False)
    for panel, what in zip(panels[:, 0], whats, strict=True):
        rows = [figure for figure in figures if figure["what"] == what]
        medians = [statistics.median(row["values"]) for row in rows]
        below = [median - min(row["values"]) for median, row in zip(medians, rows, strict=True)]
        above = [max(row["values"]) - median for median, row in zip(medians, rows, strict=True)]
        panel.barh([row["peer"] for row in rows], medians, xerr=[below, above], capsize=3)
        panel.set_title(f"{what} ({'more' if rows[0]['higher'] else 'less'} is better)", fontsize=9)
        panel.set_xlabel(rows[0]["unit"])
        panel.invert_yaxis()
    sheet.savefig(source.with_suffix(".png"), dpi=120)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
