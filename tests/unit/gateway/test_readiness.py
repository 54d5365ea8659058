"""Readiness: warming, ready, recovering; and that a busy model is not taken for a broken one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from gateway.errors import UpstreamUnavailable
from gateway.readiness import ProbeTimes, Readiness, makes_progress
from gateway.triton.upstreams import Upstreams
from tests.unit.gateway.waiting import DEADLINE_S, until

TIMES = ProbeTimes(
    interval_s=0.02, look_s=0.01, patience_s=0.05, busy_stall_s=0.5, first_retry_s=0.01, last_retry_s=0.02
)


class FakeModel:
    """What the probe meets: answers, refusals, or silence until ``gate`` opens."""

    def __init__(self) -> None:
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.probes = 0
        self.abandoned = 0
        self.status: Mapping[str, Any] | None = {"engines": []}
        self.questions = 0

    async def probe(self) -> None:
        self.probes += 1
        if self.fails:
            raise UpstreamUnavailable("gone")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.abandoned += 1
            raise

    async def ask_status(self) -> Mapping[str, Any]:
        self.questions += 1
        if self.status is None:
            raise UpstreamUnavailable("no answer")
        return self.status


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
async def readiness(model: FakeModel) -> AsyncIterator[Readiness]:
    watched = Readiness("fake", model.probe, model.ask_status, TIMES)
    task = asyncio.create_task(watched.run())
    yield watched
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def busy(**changes: Any) -> dict[str, Any]:
    return {"state": "ready", "running": 9, "waiting": 5, "seconds_since_step": 0.0, **changes}


async def test_warming_until_the_first_answer(model: FakeModel, readiness: Readiness) -> None:
    model.fails = True
    await until(lambda: model.probes > 3)
    assert readiness.state == "warming"
    model.fails = False
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    assert readiness.is_ready


async def test_recovering_after_a_failed_probe_and_ready_again(model: FakeModel, readiness: Readiness) -> None:
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.fails = True
    await until(lambda: readiness.state == "recovering")
    model.fails = False
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)


async def test_a_suspicion_holds_until_the_model_has_answered_again(model: FakeModel, readiness: Readiness) -> None:
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.gate.clear()
    readiness.suspect("a request was lost")
    assert readiness.state == "recovering"
    assert not readiness.is_ready
    model.gate.set()
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)


async def test_an_answer_to_an_older_request_does_not_lift_a_suspicion(model: FakeModel, readiness: Readiness) -> None:
    sent_at = time.monotonic()
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.fails = True
    readiness.suspect("a request was lost")
    readiness.confirm(sent_at)
    assert readiness.state == "recovering"
    readiness.confirm(time.monotonic())
    assert readiness.is_ready


async def test_no_probes_while_real_answers_come(model: FakeModel, readiness: Readiness) -> None:
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    # Answers come all the time: let several intervals pass, confirming more often than that.
    before = model.probes
    ends = time.monotonic() + 10 * TIMES.interval_s
    while time.monotonic() < ends:
        readiness.confirm(time.monotonic())
        await asyncio.sleep(0)
    assert model.probes <= before + 1


async def test_idle_it_is_probed_again_and_again(model: FakeModel, readiness: Readiness) -> None:
    await until(lambda: model.probes > 4)
    assert readiness.state == "ready"


async def test_a_probe_behind_other_work_is_no_fault(model: FakeModel, readiness: Readiness) -> None:
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.status = {"engines": [busy()]}
    model.gate.clear()
    await until(lambda: model.questions > 3)
    assert readiness.state == "ready"
    assert model.abandoned == 0  # the same probe goes on, instead of ever more of them in the queue
    model.gate.set()
    probes = model.probes
    await until(lambda: model.probes > probes)
    assert readiness.state == "ready"


async def test_a_start_is_no_fault(model: FakeModel, readiness: Readiness) -> None:
    model.status = {"engines": [{"state": "starting"}]}
    model.gate.clear()
    await until(lambda: model.questions > 2)
    assert (readiness.state, model.abandoned) == ("warming", 0)


@pytest.mark.parametrize(
    "states, gone, dead",
    [
        (["restarting"], True, False),
        (["dead", "restarting"], True, False),
        (["dead", "dead"], True, True),
        (["ready", "restarting"], False, False),
        (["starting", "dead"], False, False),
    ],
)
async def test_engines_that_are_gone_are_no_reason_for_patience(
    model: FakeModel, states: list[str], gone: bool, dead: bool
) -> None:
    patient = ProbeTimes(interval_s=0.02, look_s=0.01, patience_s=60.0, first_retry_s=0.01, last_retry_s=0.02)
    readiness = Readiness("fake", model.probe, model.ask_status, patient)
    watching = asyncio.create_task(readiness.run())
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.gate.clear()
    model.status = {"engines": [{"state": state} for state in states]}
    questions = model.questions
    await until(lambda: model.questions > questions and (readiness.state == "recovering") is gone)
    await until(lambda: readiness.is_dead is dead)
    model.gate.set()
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    assert not readiness.is_dead
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("status", [None, {"engines": []}, {"engines": [{"state": "dead"}]}])
async def test_silence_without_progress_is_a_fault(
    model: FakeModel, readiness: Readiness, status: Mapping[str, Any] | None
) -> None:
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.status = status
    model.gate.clear()
    await until(lambda: readiness.state == "recovering")
    await until(lambda: model.abandoned > 0)
    model.gate.set()
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)


async def test_a_real_answer_ends_the_wait_for_a_probe(model: FakeModel, readiness: Readiness) -> None:
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)
    model.status = {"engines": [busy()]}
    probes = model.probes
    model.gate.clear()
    await until(lambda: model.probes > probes)
    readiness.confirm(time.monotonic())
    await until(lambda: model.abandoned == 1)
    assert readiness.state == "ready"


async def test_a_mistake_in_the_probe_does_not_end_the_watch(model: FakeModel) -> None:
    async def broken() -> None:
        model.probes += 1
        raise ZeroDivisionError

    watched = Readiness("fake", broken, model.ask_status, TIMES)
    task = asyncio.create_task(watched.run())
    await until(lambda: model.probes > 2)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "engines,waited_s,expected",
    [
        ([], 5.0, False),
        ([{"state": "starting"}], 500.0, True),
        ([{"state": "dead"}], 5.0, False),
        # Alone with the probe: a step must have been made since it was sent.
        ([busy(running=1, waiting=0, seconds_since_step=1.0)], 5.0, True),
        ([busy(running=1, waiting=0, seconds_since_step=300.0)], 5.0, False),
        ([busy(running=0, waiting=1, seconds_since_step=None)], 5.0, False),
        # With other work one step may be long, but not for ever; what was before the probe does not count.
        ([busy(seconds_since_step=15.0)], 5.0, True),
        ([busy(seconds_since_step=300.0)], 5.0, True),
        ([busy(seconds_since_step=None)], 19.0, True),
        ([busy(seconds_since_step=25.0)], 25.0, False),
        ([busy(seconds_since_step=1.0)], 500.0, True),
        ([{"state": "dead"}, busy()], 5.0, True),
    ],
)
def test_what_counts_as_progress(engines: list[dict[str, Any]], waited_s: float, expected: bool) -> None:
    assert makes_progress({"engines": engines}, waited_s, ProbeTimes()) is expected


async def test_engines_that_are_all_restarted_are_seen_long_before_patience_ends(model: FakeModel) -> None:
    patient = ProbeTimes(interval_s=0.02, look_s=0.02, patience_s=600.0, busy_stall_s=600.0, first_retry_s=0.01)
    watched = Readiness("fake", model.probe, model.ask_status, patient)
    watching = asyncio.create_task(watched.run())
    try:
        await asyncio.wait_for(watched.wait_ready(), DEADLINE_S)
        model.gate.clear()
        model.status = {"engines": [{"state": "restarting"}, busy()]}
        questions = model.questions
        await until(lambda: model.questions > questions + 3)
        assert watched.is_ready
        model.status = None  # a slow answer is none yet
        questions = model.questions
        await until(lambda: model.questions > questions + 3)
        assert watched.is_ready
        model.status = {"engines": [{"state": "restarting"}, {"state": "dead"}]}
        await until(lambda: watched.state == "recovering")
        model.gate.set()
        await asyncio.wait_for(watched.wait_ready(), DEADLINE_S)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_probe_outlives_a_status_that_cannot_be_read(model: FakeModel, readiness: Readiness) -> None:
    model.fails = True
    model.status = {"engines": [None]}
    probes = model.probes
    await until(lambda: model.probes > probes + 2)
    model.fails = False
    await asyncio.wait_for(readiness.wait_ready(), DEADLINE_S)


async def test_whoever_waits_for_a_model_goes_on_when_it_is_in_doubt_again_at_once() -> None:
    upstreams = Upstreams(["127.0.0.1:9"])  # nothing is opened
    (upstream,) = upstreams._upstreams
    readiness = upstream.readiness
    waiting = asyncio.create_task(upstreams.wait_ready(DEADLINE_S))
    await asyncio.sleep(0)
    for _ in range(2):
        readiness.confirm(time.monotonic())
        readiness.suspect("in doubt")
        await asyncio.sleep(0.02)
        assert not waiting.done()
    readiness.confirm(time.monotonic())
    assert await waiting
