from __future__ import annotations

import pytest

from scripts.release_notes import NotReleasable, release_notes

CHANGELOG = """# Changelog

## [1.2.0] - 2026-03-01

### Added

- Something.

## [1.1.0] - 2026-01-01

- Older.
"""


def test_the_notes_are_the_versions_part_of_the_changelog() -> None:
    assert release_notes("v1.2.0", "1.2.0", CHANGELOG) == "### Added\n\n- Something.\n"


@pytest.mark.parametrize(
    "tag, version, changelog, says",
    [
        ("v1.1.0", "1.2.0", CHANGELOG, "the tag must be v1.2.0"),
        ("v1.3.0", "1.3.0", CHANGELOG, r"has no heading \[1.3.0\]"),
        ("v1.2.0", "1.2.0", CHANGELOG.replace("2026-03-01", "Unreleased"), "has no date"),
    ],
)
def test_what_does_not_agree_is_said(tag: str, version: str, changelog: str, says: str) -> None:
    with pytest.raises(NotReleasable, match=says):
        release_notes(tag, version, changelog)
