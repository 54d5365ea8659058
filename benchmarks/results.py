"""Figures: repeats in, medians with spread out; one JSON, one Markdown table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
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
class Point:
    """A median at one place of a curve, with the least and the most of its repeats."""

    x: float
    y: float
    least: float
    most: float


@dataclass(frozen=True)
class Curve:
    """How one peer's figure goes with ``x_name``."""

    what: str
    peer: str
    x_name: str
    unit: str
    points: tuple[Point, ...]


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
    curves: list[Curve] = field(default_factory=list)

    def draw(self, what: str, peer: str, x_name: str, unit: str, values: Mapping[float, Sequence[float]]) -> None:
        """Note a curve: ``values`` are the repeats at each x."""
        points = tuple(Point(x, statistics.median(found), min(found), max(found)) for x, found in values.items())
        self.curves.append(Curve(what, peer, x_name, unit, points))
        print(f"{what}: {peer}: {', '.join(f'{p.x:g}: {_short(p.y)}' for p in points)} {unit}", flush=True)

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
        lines = [f"# {self.title}"]
        if self.verdicts:
            lines += ["", "| target | what | wanted | measured | met |", "|---|---|---|---|---|"]
        for v in self.verdicts:
            met = "yes" if v.met else "no"
            lines.append(f"| {v.target} | {v.what} | {v.wanted} | {v.measured} | {met} |")
        if self.figures:
            lines += ["", "| what | peer | median | least – most | unit | repeats |", "|---|---|---|---|---|---|"]
        for f in self.figures:
            spread = f"{_short(min(f.values))} – {_short(max(f.values))}"
            lines.append(f"| {f.what} | {f.peer} | {_short(f.median)} | {spread} | {f.unit} | {len(f.values)} |")
        for what in dict.fromkeys(curve.what for curve in self.curves):
            lines += _table([curve for curve in self.curves if curve.what == what])
        lines += ["", "## Conditions", ""]
        for name, value in {**self.machine, **self.conditions}.items():
            told = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            lines.append(f"- {name.replace('_', ' ')}: {told}")
        return "\n".join(lines) + "\n"


def _table(curves: Sequence[Curve]) -> list[str]:
    """One row for each x, one column for each peer."""
    places = sorted({point.x for curve in curves for point in curve.points})
    by_peer = {curve.peer: {point.x: point for point in curve.points} for curve in curves}
    lines = ["", f"## {curves[0].what}", "", f"In {curves[0].unit}: median (least – most).", ""]
    lines += [f"| {curves[0].x_name} | {' | '.join(by_peer)} |", f"|---{'|---' * len(by_peer)}|"]
    for x in places:
        cells = [_cell(points.get(x)) for points in by_peer.values()]
        lines.append(f"| {x:,g} | {' | '.join(cells)} |")
    return lines


def _cell(point: Point | None) -> str:
    if point is None:
        return "–"
    if point.least == point.most:
        return _short(point.y)
    return f"{_short(point.y)} ({_short(point.least)} – {_short(point.most)})"


def ratio(of: Figure, over: Figure) -> float:
    """Median over median."""
    return of.median / over.median


def _spread(figure: Figure) -> str:
    return f"{_short(figure.median)} ({_short(min(figure.values))} – {_short(max(figure.values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
