"""Prometheus' configuration, rules and alerts, by Prometheus' own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.deploy.conftest import DEPLOY

FILES = DEPLOY / "prometheus"
HERE = Path(__file__).resolve().parent


def checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_and_its_rules_are_valid(promtool: str) -> None:
    assert "2 rule files found" in checked(promtool, "check", "config", str(FILES / "prometheus.yml"))


def test_alerts_fire_when_they_should_and_only_then(promtool: str, tmp_path: Path) -> None:
    text = (HERE / "alerts_test.yml").read_text()
    text = text.replace("RULES", str(FILES / "rules.yml")).replace("ALERTS", str(FILES / "alerts.yml"))
    (tmp_path / "alerts_test.yml").write_text(text)
    checked(promtool, "test", "rules", str(tmp_path / "alerts_test.yml"))


def test_every_alert_says_how_urgent_it_is_and_what_is_wrong() -> None:
    (group,) = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"]
    for alert in group["rules"]:
        assert alert["labels"]["severity"] in {"page", "ticket"}, alert["alert"]
        assert alert["annotations"]["summary"], alert["alert"]


def test_compose_runs_what_is_scraped() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for job in yaml.safe_load((FILES / "prometheus.yml").read_text())["scrape_configs"]:
        (target,) = job["static_configs"][0]["targets"]
        assert target.partition(":")[0] in services
