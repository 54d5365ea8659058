"""Figures: repeats in, medians with spread out; one JSON, one Markdown table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What one peer reached in several repeats. ``higher`` says which way is better."""

    what: str
    peer: str
    unit: str
    values: tuple[float, ...]
    higher: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Verdict:
    """A target, and what was measured for it."""

    target: str
    what: str
    wanted: str
    measured: str
    met: bool


@dataclass
class Report:
    """All of one run."""

    title: str
    machine: dict[str, Any]
    conditions: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def add(self, what: str, peer: str, unit: str, values: Sequence[float], higher: bool = True) -> Figure:
        """Note a figure and show it."""
        figure = Figure(what, peer, unit, tuple(values), higher)
        self.figures.append(figure)
        print(f"{what}: {peer}: {_spread(figure)} {unit}", flush=True)
        return figure

    def judge(self, target: str, what: str, wanted: str, measured: str, met: bool) -> None:
        """Note a verdict."""
        self.verdicts.append(Verdict(target, what, wanted, measured, met))

    def write(self, folder: Path, stem: str) -> Path:
        """``{stem}.json`` and ``{stem}.md``; returns the former."""
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (folder / f"{stem}.json").write_text(content + "\n", encoding="utf-8")
        (folder / f"{stem}.md").write_text(self.markdown(), encoding="utf-8")
        return folder / f"{stem}.json"

    def markdown(self) -> str:
        """Targets, figures, conditions."""
        lines = [f"# {self.title}", "", "| target | what | wanted | measured | met |", "|---|---|---|---|---|"]
        lines += [
            f"| {v.target} | {v.what} | {v.wanted} | {v.measured} | {'yes' if v.met else 'no'} |" for v in self.verdicts
        ]
        lines += ["", "| what | peer | median | least – most | unit | repeats |", "|---|---|---|---|---|---|"]
        for f in self.figures:
            spread = f"{_short(min(f.values))} – {_short(max(f.values))}"
            lines.append(f"| {f.what} | {f.peer} | {_short(f.median)} | {spread} | {f.unit} | {len(f.values)} |")
        lines += ["", "## Conditions", ""]
        for name, value in {**self.machine, **self.conditions}.items():
            told = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            lines.append(f"- {name.replace('_', ' ')}: {told}")
        return "\n".join(lines) + "\n"


def ratio(of: Figure, over: Figure) -> float:
    """Median over median."""
    return of.median / over.median


def _spread(figure: Figure) -> str:
    return f"{_short(figure.median)} ({_short(min(figure.values))} – {_short(max(figure.values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
