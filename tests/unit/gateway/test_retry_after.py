"""A full queue says when to come again, by the rate at which prompts were answered of late."""

from __future__ import annotations

import time

import pytest

from gateway.admission import Admission
from gateway.errors import QueueFull
from gateway.settings import Limits


@pytest.mark.parametrize(
    "answered, seconds_ago, wanted, retry_after_s",
    [(10, 10.0, 20, 10), (100, 10.0, 20, 1), (1, 10.0, 100, 60), (10, 31.0, 20, 1)],
)
def test_the_time_follows_the_rate(
    monkeypatch: pytest.MonkeyPatch, answered: int, seconds_ago: float, wanted: int, retry_after_s: int
) -> None:
    admission = Admission(Limits(max_queue=100))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now - seconds_ago)
    with admission.places(answered):
        pass
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with admission.places(90), pytest.raises(QueueFull) as caught, admission.places(wanted):
        pass
    assert caught.value.retry_after_s == retry_after_s
