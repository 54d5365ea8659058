"""Tables as HTML: light, and the same for people, screen readers and tests."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A table of plain texts, with a line below it."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    below = f"<p>{escape(note)}</p>" if note else ""
    return f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}'


def sparkline(values: Sequence[float], width: int = 600, height: int = 60) -> str:
    """The values as a line from left to right, 0 at the bottom and the greatest one at the top."""
    if len(values) < 2:
        return ""
    top = max(values) or 1.0
    step = width / (len(values) - 1)
    points = " ".join(
        f"{at * step:.1f},{height - 2 - value / top * (height - 4):.1f}" for at, value in enumerate(values)
    )
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
    return f'<svg class="sparkline" viewBox="0 0 {width} {height}" width="100%" height="{height}">{line}</svg>'
