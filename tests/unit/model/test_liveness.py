"""A hang is told from a start, a queue, a rest and a stopped machine."""

from __future__ import annotations

from llm_model.engines.liveness import HangRule, HangWatch


class Engine:
    """An engine under watch on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = self.step = 0.0
        self.heard = 0
        self.watch = HangWatch(HangRule(silence_s=10, first_step_factor=3), lambda: self.now)

    def run(self, seconds: float, *, busy: bool = True, steps: bool = False, speaks: bool = True) -> str | None:
        """Let time pass in looks of half a second; the first verdict, if any."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.step += 0.5 * steps
            self.heard += speaks
            found = self.watch.look(busy=busy, last_step=self.step, heard=self.heard)
            if found:
                return found
        return None


def stepped() -> Engine:
    engine = Engine()
    engine.run(1, steps=True)
    return engine


def test_prompts_without_a_step_are_a_hang() -> None:
    engine = stepped()
    assert engine.run(9) is None
    assert engine.run(2) == "it has prompts and completed no step for 10 s"


def test_the_same_step_told_a_little_differently_is_no_progress() -> None:
    engine = stepped()
    for _ in range(18):
        assert engine.run(0.5) is None
        engine.step += 1e-5
    assert engine.run(2) == "it has prompts and completed no step for 10 s"


def test_steps_are_none_however_long_a_prompt_waits() -> None:
    assert stepped().run(1000, steps=True) is None


def test_an_engine_at_rest_is_none() -> None:
    assert stepped().run(1000, busy=False) is None


def test_time_at_rest_does_not_count_once_there_is_work() -> None:
    engine = stepped()
    engine.run(1000, busy=False)
    assert engine.run(9) is None


def test_the_first_step_may_take_longer() -> None:
    engine = Engine()
    engine.watch.started(0.0)
    assert engine.run(29) is None
    assert engine.run(2) == "it has prompts and completed no step for 30 s"


def test_a_process_without_a_sign_of_life_hangs_even_at_rest() -> None:
    engine = stepped()
    assert engine.run(9, busy=False, speaks=False) is None
    assert engine.run(2, busy=False, speaks=False) == "its process gave no sign of life for 10 s"


def test_time_in_which_the_watcher_was_stopped_too_does_not_count() -> None:
    engine = stepped()
    engine.now += 3600
    assert engine.run(8) is None
