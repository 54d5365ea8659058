"""A run on paper: text for people, JSON, one line of JSON a question, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.evaluate.summary import Judged, Summary, worst
from tools.results import make_folder, write_json, write_jsonl

SUMMARY = "summary.json"
DETAILS = "questions.jsonl"
PLOT = "score_by_length.png"
PERFECT = 0.99995  # shown as 1.0000: not worth showing among the worst


def text(summary: Summary, judged: Sequence[Judged], show_worst: int) -> str:
    """Return the lines for the terminal."""
    how = {0: "one request", 1: "one by one"}.get(summary.concurrency, f"{summary.concurrency} at a time")
    lines = [
        f"model       {summary.model or 'unknown'}",
        f"questions   {summary.questions} ({how}), {summary.failed} failed, {summary.elapsed_s:.2f} s",
        f"score       {summary.score:.4f} ROUGE-L F1 (mean)",
        f"speed       {_speed(summary)}",
        f"latency     {_latency(summary)}",
        *_worst_lines(worst(judged, show_worst)),
        *_failures(judged),
        _verdict(summary),
    ]
    return "\n".join(lines)


def write(folder: Path, summary: Summary, judged: Sequence[Judged], plot: bool) -> None:
    """Write the run's files into a folder. Raises :class:`tools.errors.ToolError`."""
    make_folder(folder)
    write_jsonl(folder / DETAILS, [asdict(one) for one in judged])
    if plot:
        from tools.plots import score_by_length

        score_by_length(folder / PLOT, judged, summary.threshold)
    write_json(folder / SUMMARY, summary.as_json())


def _speed(summary: Summary) -> str:
    tokens = "unknown tokens/s" if summary.tokens_per_s is None else f"{summary.tokens_per_s:.1f} tokens/s"
    return f"{tokens}, {summary.characters_per_s:.1f} characters/s, {summary.questions_per_s:.2f} questions/s"


def _latency(summary: Summary) -> str:
    return ", ".join(f"{name} {value:.3f} s" for name, value in summary.latency_s.items()) or "no reply"


def _worst_lines(judged: Sequence[Judged]) -> list[str]:
    lines = []
    for one in judged:
        if one.score > PERFECT:
            break
        lines += [
            f"worst       {one.score:.4f}  question {one.index}: {_short(one.prompt)}",
            f"            answer:    {_short(one.answer) or '–'}",
            f"            reference: {_short(one.reference)}",
        ]
    return lines


def _failures(judged: Sequence[Judged]) -> list[str]:
    failed = [one for one in judged if one.error]
    lines = [f"failed      question {one.index}: {_short(one.error)}" for one in failed[:5]]
    return lines + ([f"failed      … and {len(failed) - 5} more"] if len(failed) > 5 else [])


def _verdict(summary: Summary) -> str:
    goal = "every question answered" if summary.threshold is None else f"threshold {summary.threshold:g}"
    return f"{'PASSED' if summary.passed else 'NOT PASSED'}  ({goal})"


def _short(value: str, width: int = 60) -> str:
    line = " ".join(value.split())
    return line if len(line) <= width else f"{line[:width]}…"
