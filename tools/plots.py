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


Points = Sequence[tuple[float, float]]


def speed_and_score(file: Path, trials: Points, front: Points, threshold: float) -> None:
    """Plot trials by tokens per second and score, with the Pareto front as a line."""
    with figure(file) as axes:
        axes.scatter([speed for speed, _ in trials], [score for _, score in trials], s=18, label="trials")
        axes.plot([speed for speed, _ in front], [score for _, score in front], marker="o", label="Pareto front")
        axes.axhline(threshold, color="gray", linestyle="--", label=f"threshold {threshold:g}")
        axes.set(xlabel="tokens per second", ylabel="ROUGE-L F1")
        axes.legend()
