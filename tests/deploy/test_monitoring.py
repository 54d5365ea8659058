"""A real Prometheus scrapes the real service, and every query of the dashboard and every rule returns data."""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.conftest import DEPLOY
from tests.e2e.stack import Ports, Stack

pytestmark = pytest.mark.timeout(600)

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "llm-service.json").read_text())
VARIABLES = {"$__rate_interval": "1m", "$gateway": ".*", "$triton": ".*"}
GPU_ROW = "GPU"
SCRAPE_S = 1


def panels() -> dict[str, list[dict[str, Any]]]:
    """The dashboard's panels by the title of their row; those above the first row are under an empty one."""
    rows: dict[str, list[dict[str, Any]]] = {"": []}
    for panel in DASHBOARD["panels"]:
        if panel["type"] == "row":
            rows[panel["title"]] = []
        else:
            rows[list(rows)[-1]].append(panel)
    return rows


def queries() -> dict[str, str]:
    """What the panels ask, but for those about GPUs, by the panel's title and the letter of the query."""
    found = {}
    for row, members in panels().items():
        for panel in members if row != GPU_ROW else []:
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                found[f"{row} / {panel['title']} / {target['refId']}"] = expression
    return found


@dataclass
class Monitored:
    """The service and the Prometheus that scrapes it."""

    stack: Stack
    prometheus: str

    def query(self, expression: str) -> list[float]:
        """The values that a query returns now."""
        reply = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=30)
        assert reply.status_code == 200, f"{expression}: {reply.text}"
        return [float(sample["value"][1]) for sample in reply.json()["data"]["result"]]

    def has_data(self, expression: str) -> bool:
        return any(not math.isnan(value) for value in self.query(expression))

    def use(self) -> None:
        """Ask in every way that some panel is about."""
        client, url = self.stack.client, self.stack.url
        self.stack.predict(["什么是线程块？", "什么是共享内存？", "什么是归约？"])
        events = client.post(
            f"{url}/predict", json={"prompt": "什么是线程束？"}, headers={"Accept": "text/event-stream"}
        )
        assert events.status_code == 200
        message = {"messages": [{"role": "user", "content": "什么是网格？"}], "max_tokens": 16}
        assert client.post(f"{url}/v1/chat/completions", json=message).status_code == 200
        assert client.post(f"{url}/predict", json={"prompt": ""}).status_code == 400


@pytest.fixture(scope="module")
def monitored(default_model: Path, prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitoring")
    stack = Stack.start({"MODEL_DIR": str(default_model)}, folder / "service.log")
    try:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
        config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
        ports = {"gateway": stack.ports.gateway, "triton": stack.ports.metrics}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{Ports.free().gateway}"
        command = [prometheus, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
        try:
            yield Monitored(stack, f"http://{address}")
        finally:
            process.terminate()
            process.wait(timeout=60)
    finally:
        assert stack.stop() == 0


def test_every_query_of_the_dashboard_returns_data(monitored: Monitored) -> None:
    wait_until_up(monitored)
    missing = queries()
    deadline = time.monotonic() + 120
    while missing and time.monotonic() < deadline:
        monitored.use()
        time.sleep(SCRAPE_S)  # a rate needs a change between two scrapes
        missing = {name: query for name, query in missing.items() if not monitored.has_data(query)}
    assert not missing


def test_every_rule_and_alert_is_evaluated(monitored: Monitored) -> None:
    wait_until_up(monitored)
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"]
    deadline = time.monotonic() + 120
    while not all(monitored.has_data(rule["record"]) for rule in rules):
        assert time.monotonic() < deadline, [rule["record"] for rule in rules if not monitored.has_data(rule["record"])]
        monitored.use()
        time.sleep(SCRAPE_S)
    groups = httpx.get(f"{monitored.prometheus}/api/v1/rules", timeout=30).json()["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(health.values()) == {"ok"}, health
    firing = [rule["name"] for group in groups for rule in group["rules"] if rule.get("state") == "firing"]
    assert not firing


def test_alerts_and_the_autoscaler_ask_for_metrics_that_there_are(monitored: Monitored) -> None:
    wait_until_up(monitored)
    texts = [(DEPLOY / "prometheus" / name).read_text() for name in ("alerts.yml", "rules.yml")]
    texts.append((DEPLOY / "helm" / "llm-service" / "templates" / "autoscaling.yaml").read_text())
    named = set(re.findall(r"\b(?:gateway_|vllm:|nv_|llm:)[a-z0-9_:]+", "\n".join(texts)))
    deadline = time.monotonic() + 60
    while absent := {name for name in named if not monitored.query(f'{{__name__="{name}"}}')}:
        assert time.monotonic() < deadline, absent
        monitored.use()
        time.sleep(SCRAPE_S)


def wait_until_up(monitored: Monitored) -> None:
    """Wait until both jobs have been scraped."""
    deadline = time.monotonic() + 60
    while True:
        try:
            # Until it is ready Prometheus refuses queries.
            ready = httpx.get(f"{monitored.prometheus}/-/ready", timeout=30).status_code == 200
            if ready and monitored.query("up") == [1.0, 1.0]:
                return
        except httpx.TransportError:
            pass  # it is still starting
        assert time.monotonic() < deadline, "Prometheus does not reach the service"
        time.sleep(0.2)


def test_no_two_panels_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert place["x"] + place["w"] <= 24


def test_the_dashboard_is_about_gateway_triton_vllm_and_gpu() -> None:
    assert set(panels()) == {"", "Gateway", "Triton", "vLLM", GPU_ROW}
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert [source["uid"] for source in sources] == ["prometheus"]
    chosen = [one for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource"]
    assert [one["current"]["value"] for one in chosen] == ["prometheus"]
