"""`python -m benchmarks.plot RESULT.json`: bars and curves, into RESULT.png. Needs matplotlib."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def main(source: Path) -> int:
    """One panel for each thing that was measured: medians with their spread."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    result = json.loads(source.read_text(encoding="utf-8"))
    panels = [(_bars, rows) for rows in _grouped(result["figures"])]
    panels += [(_curves, rows) for rows in _grouped(result.get("curves", []))]
    heights = [0.9 + 0.3 * len(rows) if draw is _bars else 3.5 for draw, rows in panels]
    sheet, places = pyplot.subplots(
        len(panels), 1, figsize=(9, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for place, (draw, rows) in zip(places[:, 0], panels, strict=True):
        draw(place, rows)
    sheet.savefig(source.with_suffix(".png"), dpi=100)
    return 0


def _grouped(measured: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    whats = dict.fromkeys(one["what"] for one in measured)
    return [[one for one in measured if one["what"] == what] for what in whats]


def _bars(place: Any, rows: list[dict[str, Any]]) -> None:
    medians = [statistics.median(row["values"]) for row in rows]
    below = [median - min(row["values"]) for median, row in zip(medians, rows, strict=True)]
    above = [max(row["values"]) - median for median, row in zip(medians, rows, strict=True)]
    place.barh([row["peer"] for row in rows], medians, xerr=[below, above], capsize=3)
    place.set_title(f"{rows[0]['what']} ({'more' if rows[0]['higher'] else 'less'} is better)", fontsize=9)
    place.set_xlabel(rows[0]["unit"])
    place.invert_yaxis()


def _curves(place: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        xs, ys = ([point[axis] for point in row["points"]] for axis in ("x", "y"))
        spread = [[p["y"] - p["least"] for p in row["points"]], [p["most"] - p["y"] for p in row["points"]]]
        place.errorbar(xs, ys, yerr=spread, marker="o", capsize=3, label=row["peer"])
    if max(point["x"] for row in rows for point in row["points"]) > 32:  # clients, in powers of two
        place.set_xscale("log", base=2)
        place.set_yscale("log")
    else:
        place.xaxis.get_major_locator().set_params(integer=True)  # nobody has half an engine
        place.set_ylim(bottom=0)
    place.set_title(rows[0]["what"], fontsize=9)
    place.set_xlabel(rows[0]["x_name"])
    place.set_ylabel(rows[0]["unit"])
    place.grid(alpha=0.3)
    place.legend(fontsize=8)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
