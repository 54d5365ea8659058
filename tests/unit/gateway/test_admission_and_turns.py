"""Places in the queue, and turns on the event loop."""

from __future__ import annotations

import asyncio

import pytest

from gateway.admission import Admission
from gateway.errors import QueueFull, TooLarge
from gateway.settings import Limits
from gateway.turns import Turns


def test_places_are_counted_and_given_back() -> None:
    admission = Admission(Limits(max_queue=10))
    with admission.places(4), admission.places(6):
        assert admission.prompts_in_flight == 10
    assert admission.prompts_in_flight == 0


def test_a_full_queue_refuses_with_a_time_to_retry() -> None:
    admission = Admission(Limits(max_queue=10))
    with admission.places(8):
        with pytest.raises(QueueFull) as caught, admission.places(3):
            pass
        assert (caught.value.status, caught.value.retry_after_s) == (429, 1)
        with admission.places(2):
            pass
    assert admission.prompts_in_flight == 0


def test_places_are_given_back_after_an_error() -> None:
    admission = Admission(Limits())
    with pytest.raises(RuntimeError), admission.places(3):
        raise RuntimeError
    assert admission.prompts_in_flight == 0


@pytest.mark.parametrize("limits", [Limits(max_batch_prompts=5), Limits(max_queue=5)])
def test_what_can_never_be_admitted_is_too_large(limits: Limits) -> None:
    admission = Admission(limits)
    with admission.places(5):
        pass
    with pytest.raises(TooLarge, match="6 prompts; at most 5"), admission.places(6):
        pass


async def test_a_few_take_their_turn_in_one_iteration_of_the_loop() -> None:
    turns = Turns(per_turn=2)
    order: list[int] = []

    async def caller(number: int) -> None:
        await turns.take()
        order.append(number)

    tasks = [asyncio.create_task(caller(number)) for number in range(7)]
    seen = []
    while len(order) < 7:
        await asyncio.sleep(0)
        seen.append(len(order))
    assert order == list(range(7))
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 2
    await asyncio.gather(*tasks)


async def test_alone_a_caller_does_not_wait() -> None:
    turns = Turns()
    turn = turns.take()
    with pytest.raises(StopIteration):
        turn.send(None)


async def test_a_cancelled_caller_does_not_hold_up_the_others() -> None:
    turns = Turns(per_turn=1)
    tasks = [asyncio.create_task(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait_for(tasks[2], 5)
    assert tasks[0].done()
    assert tasks[1].cancelled()


async def test_after_a_rush_turns_are_free_again() -> None:
    turns = Turns(per_turn=1)
    await asyncio.gather(*(turns.take() for _ in range(5)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    turn = turns.take()
    with pytest.raises(StopIteration):
        turn.send(None)
