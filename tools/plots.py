"""Plots as PNG files. Labels are English: matplotlib brings no font with Chinese characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.evaluate.summary import Judged


@contextmanager
def figure(file: Path) -> Iterator[Any]:
    """Yield the axes of a new figure and save it afterwards."""
    import matplotlib as mpl

    mpl.use("Agg")  # needs no display
    from matplotlib import pyplot

    shown, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    try:
        yield axes
        axes.grid(alpha=0.3)
        shown.savefig(file, dpi=120)
    finally:
        pyplot.close(shown)


def score_by_length(file: Path, judged: Sequence[Judged], threshold: float | None) -> None:
    """Plot each answer's score against its reference's length."""
    with figure(file) as axes:
        answered = [one for one in judged if not one.error]
        failed = [one for one in judged if one.error]
        axes.scatter([len(one.reference) for one in answered], [one.score for one in answered], s=14, label="answered")
        if failed:
            axes.scatter(
                [len(one.reference) for one in failed], [one.score for one in failed], marker="x", label="failed"
            )
        if threshold is not None:
            axes.axhline(threshold, color="gray", linestyle="--", label=f"threshold {threshold:g}")
        axes.set(xlabel="length of the reference (characters)", ylabel="ROUGE-L F1", ylim=(-0.03, 1.03))
        axes.legend()
