"""Places of an engine that rows of batches do not get."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from llm_model.engines.base import GenerationRequest
from llm_model.engines.places import BatchPlaces, kept_for_singles
from llm_model.engines.stats import EngineStats
from llm_model.engines.vllm_figures import take_scheduler_stats
from llm_model.parameters import SamplingParameters

SINGLE, ROW = 0, 1


@pytest.mark.parametrize("places, kept", [(1, 0), (15, 0), (16, 1), (64, 4), (272, 16), (1040, 16)])
def test_a_few_places_are_kept(places: int, kept: int) -> None:
    assert kept_for_singles(places) == kept
    assert BatchPlaces(places, EngineStats()).count == places - kept


class Runs:
    """Requests that take a place and keep it until they are told to end."""

    def __init__(self, places: int) -> None:
        self.stats = EngineStats()
        self.running: set[str] = set()
        self._places = BatchPlaces(places, self.stats)

    async def start(self, name: str, priority: int) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(GenerationRequest(name, [1], SamplingParameters(), priority=priority)))
        for _ in range(3):
            await asyncio.sleep(0)
        return task

    async def _run(self, request: GenerationRequest) -> None:
        async with self._places.take(request):
            self.running.add(request.request_id)
            try:
                await asyncio.Event().wait()
            finally:
                self.running.discard(request.request_id)


async def test_rows_wait_while_the_others_have_their_places_and_singles_do_not() -> None:
    runs = Runs(places=16)
    rows = [await runs.start(f"row{n}", ROW) for n in range(17)]
    assert (len(runs.running), runs.stats.held_back) == (15, 2)
    single = await runs.start("single", SINGLE)
    assert "single" in runs.running
    await cancelled(rows[0])
    assert ("row15" in runs.running, "row16" in runs.running, runs.stats.held_back) == (True, False, 1)
    await cancelled(*rows[1:], single)
    assert (runs.running, runs.stats.held_back) == (set(), 0)


async def test_a_row_that_is_given_up_while_it_waits_leaves_no_trace() -> None:
    runs = Runs(places=2)
    rows = [await runs.start(f"row{n}", ROW) for n in range(4)]
    await cancelled(rows[2])
    assert runs.stats.held_back == 1
    await cancelled(rows[0])
    assert runs.running == {"row1", "row3"}
    await cancelled(*rows)


def test_rows_held_back_count_as_waiting() -> None:
    stats = EngineStats()
    stats.held_back = 3
    step = SimpleNamespace(num_running_reqs=5, num_waiting_reqs=2, kv_cache_usage=0.5, spec_decoding_stats=None)
    take_scheduler_stats(stats, step)
    assert stats.gauges["vllm:num_requests_waiting"] == 5


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
