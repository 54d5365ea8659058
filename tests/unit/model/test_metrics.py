"""The engines' figures on Triton's metrics endpoint: their names, their sums, and that they never stop the model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from llm_model.engines.stats import COUNTERS, GAUGES, HISTOGRAMS, EngineStats, Histogram
from llm_model.metrics import MetricsPublisher
from tests.fakes.triton_python_backend_utils import MetricFamily
from tests.waiting import wait_until

LABELS = {"model": "llm", "version": "1"}
FIRST_TOKEN = "vllm:time_to_first_token_seconds"


@pytest.fixture(autouse=True)
def no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetricFamily, "series", {})


@pytest.fixture
def stats() -> EngineStats:
    return EngineStats()


@pytest.fixture
def publisher(stats: EngineStats) -> Iterator[MetricsPublisher]:
    made = MetricsPublisher(LABELS, lambda: {"e0": stats})
    yield made
    made.stop()


def published() -> dict[str, float]:
    """The values of the series without labels of their own."""
    plain = {("model", "llm"), ("version", "1"), ("engine", "e0")}
    return {name: metric.value() for (name, labels), metric in MetricFamily.series.items() if labels == plain}


def test_what_has_no_labels_of_its_own_is_zero_from_the_start(publisher: MetricsPublisher) -> None:
    publisher.start()
    sums = {f"{name}{end}" for name in HISTOGRAMS for end in ("_sum", "_count")}
    assert published() == dict.fromkeys({*COUNTERS, *GAUGES, *sums} - {"vllm:request_success_total"}, 0.0)


def test_sums_are_brought_up_to_date(publisher: MetricsPublisher, stats: EngineStats) -> None:
    publisher.start()
    for amount in (3, 4):
        stats.count("vllm:generation_tokens_total", amount)
        stats.gauges["vllm:num_requests_running"] = amount
        publisher._publish()
    assert MetricFamily.value("vllm:generation_tokens_total", **LABELS, engine="e0") == 7
    assert MetricFamily.value("vllm:num_requests_running", engine="e0") == 4


def test_requests_are_counted_by_their_finish_reason(publisher: MetricsPublisher, stats: EngineStats) -> None:
    for reason in ("stop", "stop", "length"):
        stats.count("vllm:request_success_total", 1, (("finished_reason", reason),))
    publisher.start()
    counted = [MetricFamily.value("vllm:request_success_total", finished_reason=r) for r in ("stop", "length", "abort")]
    assert counted == [2, 1, None]


def test_a_histogram_is_what_prometheus_expects(publisher: MetricsPublisher, stats: EngineStats) -> None:
    bounds = HISTOGRAMS[FIRST_TOKEN][1]
    stats.histograms[FIRST_TOKEN].observe([0.0005, bounds[3], bounds[3] * 1.01, 1e9])
    publisher.start()
    buckets = [MetricFamily.value(f"{FIRST_TOKEN}_bucket", le=f"{bound:g}") for bound in bounds]
    assert buckets == [1, 1, 1, 2] + [3] * (len(bounds) - 4)
    assert MetricFamily.value(f"{FIRST_TOKEN}_bucket", le="+Inf") == 4
    assert MetricFamily.value(f"{FIRST_TOKEN}_count") == 4
    assert MetricFamily.value(f"{FIRST_TOKEN}_sum") == pytest.approx(1e9, rel=1e-6)


def test_bounds_belong_to_the_bucket_below() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe([0.5, 1.0, 1.5, 2.0, 2.5])
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 7.5)


def test_each_engine_has_series_of_its_own() -> None:
    figures = {"e0": EngineStats(), "e1": EngineStats()}
    figures["e1"].count("vllm:prompt_tokens_total", 5)
    publisher = MetricsPublisher(LABELS, lambda: figures)
    publisher.start()
    publisher.stop()
    assert [MetricFamily.value("vllm:prompt_tokens_total", engine=name) for name in figures] == [0, 5]


def test_a_server_without_metrics_serves_all_the_same(
    publisher: MetricsPublisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(MetricFamily, "available", False)
    with caplog.at_level(logging.INFO, logger="llm.model"):
        publisher.start()
    assert "no model metrics" in caplog.text
    assert "metrics" not in [thread.name for thread in threading.enumerate()]


def test_the_last_figures_are_published_at_the_end(publisher: MetricsPublisher, stats: EngineStats) -> None:
    publisher.start()
    stats.count("vllm:generation_tokens_total", 9)
    publisher.stop()
    assert MetricFamily.value("vllm:generation_tokens_total") == 9


def test_figures_go_out_while_the_model_runs_and_survive_a_failure(
    stats: EngineStats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llm_model.metrics._INTERVAL_S", 0.01)
    failures = 0

    def figures() -> dict[str, EngineStats]:
        nonlocal failures
        if stats.gauges["vllm:num_requests_waiting"] and not failures:
            failures += 1
            raise RuntimeError("an engine is in a bad mood")
        return {"e0": stats}

    publisher = MetricsPublisher(LABELS, figures)
    publisher.start()
    stats.gauges["vllm:num_requests_waiting"] = 5.0
    wait_until(lambda: MetricFamily.value("vllm:num_requests_waiting") == 5)
    publisher.stop()
    assert failures == 1
    assert "the metrics could not be published" in caplog.text


def test_the_age_of_the_latest_step(stats: EngineStats) -> None:
    assert stats.seconds_since_step is None
    stats.step_completed()
    assert stats.seconds_since_step is not None
    assert 0 <= stats.seconds_since_step < 60
