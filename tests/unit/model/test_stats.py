"""Figures that travel between processes and outlive them."""

from __future__ import annotations

import pytest

from llm_model.engines.stats import EngineStats, StatsSnapshot

SUCCESS = "vllm:request_success_total"
LATENCY = "vllm:e2e_request_latency_seconds"
STOP = (("finished_reason", "stop"),)


def worked(successes: int, *latencies: float) -> EngineStats:
    stats = EngineStats()
    stats.count(SUCCESS, successes, STOP)
    stats.histograms[LATENCY].observe(latencies)
    stats.gauges["vllm:num_requests_running"] = 5
    return stats


def test_a_snapshot_makes_the_same_figures_elsewhere() -> None:
    stats, copy = worked(3, 0.1, 7.0), EngineStats()
    copy.load(stats.snapshot())
    assert copy.counters == stats.counters
    assert copy.gauges == stats.gauges
    assert copy.histograms == stats.histograms


def test_the_counts_of_engines_that_died_are_added() -> None:
    before = StatsSnapshot().plus(worked(3, 0.1, 7.0).snapshot()).without_gauges()
    stats = EngineStats()
    stats.load(before)
    assert stats.gauges["vllm:num_requests_running"] == 0
    stats.load(before.plus(worked(2, 0.1).snapshot()))
    assert stats.counters[SUCCESS, STOP] == 5
    assert stats.gauges["vllm:num_requests_running"] == 5
    assert sum(stats.histograms[LATENCY].counts) == 3
    assert stats.histograms[LATENCY].total == pytest.approx(7.2)


def test_what_the_pool_says_of_an_engine_stays() -> None:
    stats = EngineStats()
    stats.gauges["llm:engine_alive"] = 1.0
    stats.counters["llm:engine_restarts_total", ()] = 2.0
    stats.load(worked(1).snapshot())
    assert (stats.gauges["llm:engine_alive"], stats.counters["llm:engine_restarts_total", ()]) == (1.0, 2.0)
