"""Finished prompts go out in groups: soon, together, and at once when they are the last."""

from __future__ import annotations

import asyncio

from llm_model.finished import FinishedPrompt, FinishedPrompts

LONG_S = 60.0


async def settle() -> None:
    """Let every task go on until it waits for something that has not come."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_last_ones_wait_for_nobody() -> None:
    finished = FinishedPrompts()
    finished.add(FinishedPrompt(0, None))
    group = asyncio.create_task(finished.group(3, LONG_S))
    await settle()
    assert not group.done(), "others may come"
    finished.add(FinishedPrompt(2, None))
    finished.add(FinishedPrompt(1, None))
    await settle()
    assert group.done(), "no others can come"
    assert [done.position for done in group.result()] == [0, 2, 1]


async def test_others_are_waited_for_no_longer_than_the_interval() -> None:
    finished = FinishedPrompts()
    finished.add(FinishedPrompt(0, None))
    assert [done.position for done in await finished.group(2, 0.01)] == [0]
    finished.add(FinishedPrompt(1, None))
    assert [done.position for done in await finished.group(1, LONG_S)] == [1]


async def test_without_an_interval_what_is_there_goes_out() -> None:
    finished = FinishedPrompts()
    finished.add(FinishedPrompt(0, None))
    assert [done.position for done in await finished.group(2, 0)] == [0]


async def test_where_all_are_waited_for_they_come_in_order() -> None:
    finished = FinishedPrompts()
    finished.add(FinishedPrompt(2, None))
    group = asyncio.create_task(finished.group(3, None))
    await settle()
    finished.add(FinishedPrompt(0, None))
    await settle()
    assert not group.done()
    finished.add(FinishedPrompt(1, None))
    await settle()
    assert group.done()
    assert [done.position for done in group.result()] == [0, 1, 2]
