"""The workflows call the project's own make targets and scripts, and nothing else decides what a check is."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.unit.docs.markdown import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def commands(workflow: dict[str, Any]) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda path: path.name)
def test_targets_and_scripts_exist(file: Any) -> None:
    workflow = yaml.safe_load(file.read_text())
    text = "\n".join(commands(workflow))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= set(targets)
    assert all((ROOT / script).exists() for script in re.findall(r"\bscripts/[\w./]+", text))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_has_a_limit_and_the_workflow_only_the_rights_it_needs(file: Any) -> None:
    workflow = yaml.safe_load(file.read_text())
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    wanted = {"contents": "write" if file.name == "release.yml" else "read"}
    assert workflow["permissions"] == wanted


def test_lint_and_test_are_run_for_every_change() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    assert {"make lint", "make test"} <= set(commands(workflow))
    assert "pull_request" in workflow[True]  # YAML 1.1 reads the key `on` as a truth
