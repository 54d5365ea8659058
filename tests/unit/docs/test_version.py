"""The version is said in the file VERSION; what has to repeat it says the same."""

from __future__ import annotations

import re

import tomllib
import yaml

from gateway.version import VERSION
from tests.unit.docs.markdown import ROOT


def test_it_is_a_semantic_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", VERSION)


def test_the_changelog_begins_with_it() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert newest
    assert newest[1] == VERSION


def test_the_chart_has_it() -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "helm" / "llm-service" / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_project_file_leaves_it_to_the_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]


def test_the_image_brings_the_file() -> None:
    assert "!VERSION" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert re.search(r"^COPY .*\bVERSION\b", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
