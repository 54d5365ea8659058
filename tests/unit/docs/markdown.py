"""The parts of a Markdown file that tests look at: fenced blocks, tables, headings, links, code spans.

As much of Markdown as the project's own documents use. A comment on the line before a fence is its marker:
``<!-- run -->``. A JSON block that begins right after a fence is what that one prints, its answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
DOCUMENTS = (ENGLISH, CHINESE, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"<!-- (?P<marker>.+?) -->\n\Z")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_CODE_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """One fenced block. ``marker`` and ``answer`` are empty where there is none."""

    language: str
    code: str
    marker: str
    answer: str


@dataclass(frozen=True)
class Table:
    """A table: its header and its rows, cells without the white space around them and with ``\\|`` resolved."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        return [row[self.header.index(name)] for row in self.rows]


def fences(text: str) -> list[Fence]:
    """All fenced blocks, in order."""
    found = list(_FENCE.finditer(text))
    by_start = {match.start(): match for match in found}
    result = []
    for match in found:
        marker = _MARKER.search(text[: match.start()])
        after = by_start.get(match.end() + 1)
        answer = after["code"] if after and after["language"] == "json" else ""
        result.append(Fence(match["language"], match["code"], marker["marker"] if marker else "", answer))
    return result


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def tables(text: str) -> list[Table]:
    """All tables, in order."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", prose(text), re.MULTILINE)
    return [Table(rows[0], tuple(rows[2:])) for rows in map(_rows, blocks)]


def table(text: str, *header: str) -> Table:
    """The one table whose header begins so."""
    (found,) = [one for one in tables(text) if one.header[: len(header)] == header]
    return found


def code_spans(text: str) -> list[str]:
    """The contents of ``code spans`` in a piece of prose."""
    return _CODE_SPAN.findall(text)


def links(text: str) -> list[str]:
    """The targets of all links."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The names under which headings can be linked to, made as GitHub makes them."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose(text))}


def _rows(block: str) -> list[tuple[str, ...]]:
    return [tuple(_cells(line)) for line in block.splitlines()]


def _cells(line: str) -> Iterator[str]:
    for cell in _CELL_BORDER.split(line.strip()[1:-1]):
        yield cell.strip().replace("\\|", "|")
