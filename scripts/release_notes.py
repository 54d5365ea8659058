"""Print a version's part of CHANGELOG.md: the notes of a release.

    release_notes.py vX.Y.Z

The version must be the one in the file VERSION, and no longer be called unreleased.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class NotReleasable(Exception):
    """The tag, the version and the changelog do not agree; the text says how."""


def release_notes(tag: str, version: str, changelog: str) -> str:
    """The text below the version's heading. Raises NotReleasable."""
    if tag != f"v{version}":
        raise NotReleasable(f"the tag is {tag}, but VERSION says {version}: the tag must be v{version}")
    heading = re.search(rf"^## \[{re.escape(version)}\](.*)$", changelog, re.MULTILINE)
    if heading is None:
        raise NotReleasable(f"CHANGELOG.md has no heading [{version}]")
    if not re.search(r"\d{4}-\d{2}-\d{2}", heading.group(1)):
        raise NotReleasable(f"CHANGELOG.md: the heading [{version}] has no date")
    return re.split(r"^## ", changelog[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip() + "\n"


def main(arguments: list[str]) -> int:
    """Print the notes, or why there are none."""
    if len(arguments) != 1:
        print("usage: release_notes.py vX.Y.Z", file=sys.stderr)
        return 2
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    try:
        print(release_notes(arguments[0], version, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), end="")
    except NotReleasable as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
