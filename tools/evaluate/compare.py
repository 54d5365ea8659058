"""Two runs side by side: figures, and the questions whose score changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.console import table
from tools.errors import UsageError
from tools.evaluate.report import DETAILS, SUMMARY
from tools.results import read_json, read_jsonl

FIGURES = (
    ("score", 4),
    ("tokens_per_s", 1),
    ("characters_per_s", 1),
    ("questions_per_s", 2),
    ("elapsed_s", 2),
    ("failed", 0),
)


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    name: str
    summary: dict[str, Any]
    details: list[dict[str, Any]]

    @staticmethod
    def read(folder: Path) -> Run:
        """Read the files that ``run --out`` wrote. Raises :class:`UsageError`."""
        run = Run(folder.name or str(folder), read_json(folder / SUMMARY), read_jsonl(folder / DETAILS))
        if not isinstance(run.summary.get("score"), (int, float)) or any("score" not in one for one in run.details):
            raise UsageError(f"{folder}: not the output of tools.evaluate")
        return run


def compare(before: Run, after: Run) -> dict[str, Any]:
    """Return the figures of both runs and each question's change. Raises :class:`UsageError` for other questions."""
    if [one["prompt"] for one in before.details] != [one["prompt"] for one in after.details]:
        raise UsageError(f"{before.name} and {after.name} are not runs over the same questions")
    changes = [
        {
            "index": old["index"],
            "prompt": old["prompt"],
            "before": old["score"],
            "after": new["score"],
            "change": new["score"] - old["score"],
        }
        for old, new in zip(before.details, after.details, strict=True)
    ]
    return {
        "before": {"run": before.name, **before.summary},
        "after": {"run": after.name, **after.summary},
        "better": sum(one["change"] > 0 for one in changes),
        "worse": sum(one["change"] < 0 for one in changes),
        "questions": changes,
    }


def text(compared: dict[str, Any], show: int) -> str:
    """Return the comparison for the terminal."""
    before, after = compared["before"], compared["after"]
    rows = [
        (name, *(_number(value, digits) for value in (before[name], after[name], _change(before[name], after[name]))))
        for name, digits in FIGURES
    ]
    moved = sorted((one for one in compared["questions"] if one["change"]), key=lambda one: -abs(one["change"]))
    return "\n".join(
        [
            table(("", before["run"], after["run"], "change"), rows),
            f"{compared['better']} questions better, {compared['worse']} worse, of {len(compared['questions'])}",
            *_moves(moved[:show]),
        ]
    )


def _moves(moved: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{one['before']:.4f} → {one['after']:.4f}  question {one['index']}: {one['prompt'][:60]}" for one in moved]


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
