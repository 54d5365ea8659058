"""Prompts that begin alike go where their beginning is known, as long as that engine has no more to do."""

from __future__ import annotations

from llm_model.engines.base import GenerationRequest
from llm_model.engines.placement import Placement, takers
from llm_model.engines.slots import Changes, Slot
from llm_model.parameters import SamplingParameters
from tests.unit.model.fake_engines import ScriptedEngine

DOCUMENT = list(range(300))


def slots(count: int = 3) -> list[Slot]:
    return [Slot(ScriptedEngine(name), Changes()) for name in "abcdef"[:count]]


def prompt(tokens: list[int]) -> GenerationRequest:
    return GenerationRequest("r", tokens, SamplingParameters(max_tokens=16))


def chosen(placement: Placement, of: list[Slot], tokens: list[int]) -> str:
    slot = placement.choose(takers(of), prompt(tokens))
    assert slot is not None
    return slot.name


def test_a_beginning_that_an_engine_knows_goes_there() -> None:
    placement, of = Placement(), slots()
    of[0].outstanding = 1
    assert chosen(placement, of, DOCUMENT) == "b"
    of[0].outstanding = 0
    assert chosen(placement, of, [*DOCUMENT, 7]) == "b"
    assert chosen(placement, of, [9, *DOCUMENT]) == "a"


def test_the_longest_beginning_counts() -> None:
    placement, of = Placement(), slots(2)
    assert chosen(placement, of, DOCUMENT) == "a"
    other = [*DOCUMENT[:64], *range(1000, 1300)]
    of[0].outstanding = 10_000
    assert chosen(placement, of, other) == "b"
    of[0].outstanding = of[1].outstanding = 0
    assert chosen(placement, of, DOCUMENT) == "a"
    assert chosen(placement, of, other) == "b"


def test_work_counts_more_than_a_beginning() -> None:
    placement, of = Placement(), slots(2)
    assert chosen(placement, of, DOCUMENT) == "a"
    of[0].outstanding = len(DOCUMENT) + 16
    assert chosen(placement, of, DOCUMENT) == "b"


def test_an_engine_that_was_restarted_knows_nothing() -> None:
    placement, of = Placement(), slots(2)
    of[0].outstanding = 1
    assert chosen(placement, of, DOCUMENT) == "b"
    placement.forget("b")
    of[0].outstanding = 0
    assert chosen(placement, of, DOCUMENT) == "a"


def test_engines_that_take_nothing_are_not_chosen() -> None:
    placement, of = Placement(), slots(2)
    of[0].reserved = True
    assert chosen(placement, of, DOCUMENT) == "b"
    of[1].recovery = "restarting"
    assert placement.choose(takers(of), prompt(DOCUMENT)) is None


def on_gpus(*names: str) -> list[Slot]:
    found = slots(len(names))
    for slot, name in zip(found, names, strict=True):
        slot.gpu = name
    return found


def take(placement: Placement, of: list[Slot], tokens: int) -> str:
    """The engine that a prompt of so many tokens is put on."""
    slot = placement.choose(of, prompt([0] * tokens))
    assert slot is not None
    slot.take(tokens + 16)
    return slot.name


def carried_by(of: list[Slot], prompts: int, uneven: int = 1) -> list[int]:
    """How many of so many prompts, of which none ends, each engine gets."""
    placement = Placement()
    for number in range(prompts):
        take(placement, of, tokens=1 + number % uneven)
    return [slot.in_flight for slot in of]


def test_few_prompts_share_one_of_the_engines_on_a_gpu() -> None:
    assert carried_by(on_gpus("0", "0"), 20) == [20, 0]
    assert carried_by(on_gpus("0", "0"), 40) == [32, 8]


def test_gpus_share_few_prompts_evenly() -> None:
    assert carried_by(on_gpus("0", "1", "0", "1"), 20) == [10, 10, 0, 0]


def test_many_prompts_are_spread_evenly() -> None:
    assert carried_by(on_gpus("0", "0", "0", "0"), 1024) == [256] * 4
    assert carried_by(on_gpus("0", "1", "0", "1"), 1024) == [256] * 4


def test_no_row_waits_while_another_engine_has_a_place_for_it() -> None:
    free, bounded = on_gpus("0", "0", "0", "0"), on_gpus("0", "0", "0", "0")
    for slot in bounded:
        slot.batch_places = 128
    assert max(carried_by(free, 512, uneven=50)) > 128  # by their tokens alone
    assert carried_by(bounded, 512, uneven=50) == [128] * 4


def test_few_prompts_share_an_engine_only_while_it_has_places_for_them() -> None:
    of = on_gpus("0", "0", "0")
    for slot in of:
        slot.batch_places = 8
    assert carried_by(of, 20) == [8, 8, 4]


def test_with_all_places_taken_the_least_loaded_engine_gets_the_next_row() -> None:
    placement, of = Placement(), slots(2)
    for slot in of:
        slot.batch_places = 1
    assert [take(placement, of, tokens) for tokens in (9, 5, 1, 1)] == ["a", "b", "b", "a"]


def test_engines_without_a_gpu_of_their_own_share_from_the_first_prompt() -> None:
    assert carried_by(slots(2), 4) == [2, 2]
