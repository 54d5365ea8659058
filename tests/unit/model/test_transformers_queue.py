"""Which rows form a batch, in which order, and that the accounts come back to zero."""

from __future__ import annotations

import threading

import pytest

from llm_model.engines.base import GenerationRequest, Sample
from llm_model.engines.transformers_queue import _GATHER_S, BatchLimits, RowQueue
from llm_model.engines.transformers_row import EndTokens, Row
from llm_model.errors import EngineUnavailable, ModelError
from llm_model.parameters import SamplingParameters

LIMITS = BatchLimits(rows=3, prefill_tokens=100, cache_tokens=200)


class Nobody:
    def put(self, sample: Sample) -> None:
        pass

    def fail(self, error: ModelError) -> None:
        pass


def make_row(name: str = "r", prompt: int = 5, budget: int = 10, priority: int = 0) -> Row:
    request = GenerationRequest(name, [1] * prompt, SamplingParameters(max_tokens=budget), priority=priority)
    return Row(request, 0, budget, EndTokens(None, frozenset()), Nobody())


def names(rows: list[Row]) -> list[str]:
    return [row.request.request_id for row in rows]


def accounts(queue: RowQueue) -> tuple[int, int, int]:
    return queue.waiting, queue.running, queue.outstanding_tokens


@pytest.mark.parametrize(
    ("rows", "longest_prefix", "longest_rest", "fits"),
    [
        (3, 10, 10, True),
        (4, 10, 10, False),  # rows
        (2, 51, 1, False),  # tokens of the prefill
        (2, 50, 51, False),  # tokens in the cache at the end
        (1, 500, 500, True),  # one row always
    ],
)
def test_limits_count_padding(rows: int, longest_prefix: int, longest_rest: int, fits: bool) -> None:
    assert LIMITS.admit(rows, longest_prefix, longest_rest) is fits


def test_smaller_priority_goes_first_then_earlier_arrival() -> None:
    queue = RowQueue(LIMITS)
    queue.submit([make_row("a", priority=1), make_row("b", priority=1), make_row("c"), make_row("d")])
    assert names(queue.pick()) == ["c", "d", "a"]
    assert names(queue.pick()) == ["b"]


def test_row_that_does_not_fit_keeps_its_place_before_smaller_ones() -> None:
    queue = RowQueue(LIMITS)
    queue.submit([make_row("short"), make_row("long", prompt=90), make_row("late")])
    assert names(queue.pick()) == ["short"]
    assert names(queue.pick()) == ["long"]


def test_running_rows_take_room() -> None:
    queue = RowQueue(LIMITS)
    queue.submit([make_row("a"), make_row("b")])
    running = queue.pick()
    queue.submit([make_row("c"), make_row("d")])
    assert names(queue.pick(running)) == ["c"]


def test_accounts_follow_a_row_to_its_end() -> None:
    queue = RowQueue(LIMITS)
    row = make_row(prompt=5, budget=2)
    queue.submit([row])
    assert accounts(queue) == (1, 0, 7)
    queue.pick()
    assert accounts(queue) == (0, 1, 7)
    row.accept(1)
    assert queue.settle([row]) == [row]
    assert accounts(queue) == (0, 1, 1)
    row.accept(1)
    assert queue.settle([row]) == []
    assert accounts(queue) == (0, 0, 0)


def test_cancelled_waiting_row_leaves_at_once_and_is_never_picked() -> None:
    queue = RowQueue(LIMITS)
    gone, kept = make_row("gone"), make_row("kept")
    queue.submit([gone, kept])
    queue.cancel([gone])
    assert queue.waiting == 1
    assert names(queue.pick()) == ["kept"]


def test_cancelled_running_row_leaves_when_its_step_is_settled() -> None:
    queue = RowQueue(LIMITS)
    row = make_row()
    queue.submit([row])
    queue.pick()
    queue.cancel([row])
    assert queue.running == 1  # the worker still computes it
    assert queue.settle([row]) == []
    assert accounts(queue) == (0, 0, 0)


def test_cancelling_what_is_finished_changes_nothing() -> None:
    queue = RowQueue(LIMITS)
    row = make_row(budget=1)
    queue.submit([row])
    queue.pick()
    row.accept(1)
    queue.settle([row])
    queue.cancel([row])
    assert accounts(queue) == (0, 0, 0)


def test_closed_queue_refuses_rows_and_hands_out_those_that_waited() -> None:
    queue = RowQueue(LIMITS)
    queue.submit([make_row("a")])
    queue.close()
    assert queue.wait_for_rows() is False
    with pytest.raises(EngineUnavailable):
        queue.submit([make_row()])
    assert names(queue.drain()) == ["a"]
    assert accounts(queue) == (0, 0, 0)


def test_worker_sleeps_until_a_row_comes() -> None:
    queue = RowQueue(LIMITS)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(queue.wait_for_rows()), daemon=True)
    thread.start()
    queue.submit([make_row()])
    thread.join(5)
    assert answers == [True]


class Pauses(threading.Condition):
    """Each wait is noted and ends at once, as if its time had passed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seen.append(timeout)
        return False


@pytest.mark.parametrize(("rows", "pauses"), [(1, 1), (2, 0), (3, 0)])
def test_only_a_batch_with_room_waits_for_more(rows: int, pauses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = RowQueue(BatchLimits(rows=2, prefill_tokens=100, cache_tokens=200))
    queue.submit([make_row() for _ in range(rows)])
    condition = Pauses()
    monkeypatch.setattr(queue, "_changed", condition)
    assert queue.wait_for_rows()
    assert condition.seen == [_GATHER_S] * pauses
