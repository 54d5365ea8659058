"""When a trial counts as passed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import httpx
import pytest

from tests.chaos import soak
from tests.chaos.load import outcome_of
from tests.chaos.resources import Usage
from tests.chaos.trial import Done, Trial, table

REST = Usage(seconds=0, processes=7, rss_mib=900, descriptors=100, threads=80, shm_files=2)


def trial(outcomes: dict[str, int], excused: int = 0, after: Usage = REST) -> Trial:
    return Trial([Done("kill", 1.0, 2.0)], Counter(outcomes), excused, REST, after)


def test_all_answered_and_nothing_left_is_good() -> None:
    good = trial({"answered": 90, "client left": 5, "connection lost": 3, "unanswered": 0}, excused=3)
    assert good.is_good
    assert "leaks: none" in table(good)


@pytest.mark.parametrize(
    "bad",
    [
        trial({"answered": 90, "unanswered": 1}),
        trial({"answered": 90, "503 not_ready": 1}),
        trial({"answered": 90, "connection lost": 3}, excused=2),
        trial({"answered": 90}, after=replace(REST, processes=8)),
        trial({"answered": 90}, after=replace(REST, descriptors=300)),
    ],
)
def test_a_lost_request_or_a_leak_is_not(bad: Trial) -> None:
    assert not bad.is_good


@pytest.mark.parametrize(
    "status,answer,asked,outcome",
    [
        (200, {"response": "x"}, "a", "answered"),
        (200, {"response": ["x", "y"]}, ["a", "b"], "answered"),
        (200, {"response": ["x"]}, ["a", "b"], "an answer of the wrong shape"),
        (200, {"response": ["x", ""], "errors": [{"type": "model_failed"}]}, ["a", "b"], "row error model_failed"),
        (503, {"error": {"type": "not_ready", "request_id": "1"}}, "a", "503 not_ready"),
        (503, {"error": {"type": "not_ready", "request_id": ""}}, "a", "an error without a request id"),
    ],
)
def test_endings_have_names(status: int, answer: object, asked: object, outcome: str) -> None:
    assert outcome_of(httpx.Response(status, json=answer), {"prompt": asked}) == outcome


def test_the_soak_bounds_memory_and_all_else() -> None:
    assert soak.judge([REST, replace(REST, rss_mib=999)], failed=0) == []
    grown = replace(REST, rss_mib=1000, descriptors=200, processes=8)
    assert len(soak.judge([REST, grown], failed=2)) == 4
