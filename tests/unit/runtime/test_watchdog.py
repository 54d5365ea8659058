"""What makes the watchdog restart Triton, and what does not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from runtime.settings import RuntimeSettings
from runtime.triton_probe import Sign, sign_of
from runtime.watchdog import FIRST_PAUSE_S, LONGEST_PAUSE_S, Pauses, Suspicion, Watchdog

DEAD, SILENT, ANSWERS = Sign("dead"), Sign("silent"), Sign("answers")
ABSENT, STARTING = Sign("absent"), Sign("starting")


def busy(age_s: float) -> Sign:
    return Sign("busy", age_s)


def reasons(signs: Iterable[Sign], each_s: float = 30.0, stall_s: float = 60.0) -> list[str]:
    """What is said over a series of looks that lie ``each_s`` apart."""
    suspicion = Suspicion(stall_s, most_a_look_s=50)
    return [reason for sign in signs if (reason := suspicion.add(sign, each_s))]


def test_a_model_whose_process_is_gone_is_restarted_at_the_second_look() -> None:
    assert reasons([DEAD]) == []
    assert reasons([DEAD, ABSENT, DEAD]) == []
    assert reasons([DEAD, DEAD], each_s=0.1) == ["the model's process is gone"]


@pytest.mark.parametrize("sign", [ANSWERS, ABSENT, STARTING, busy(0.1), busy(59)])
def test_steps_a_start_and_an_absent_triton_are_waited_for(sign: Sign) -> None:
    assert reasons([sign] * 1000) == []


def test_a_long_queue_is_no_hang_while_steps_go_on() -> None:
    assert reasons([busy(25), busy(1), busy(40), busy(3)] * 100) == []


@pytest.mark.parametrize("sign", [SILENT, busy(500)])
def test_no_sign_of_life_for_the_whole_time_is_a_hang(sign: Sign) -> None:
    assert reasons([sign]) == []
    (reason,) = reasons([sign, sign])
    assert "no token for 60 s" in reason


def test_an_answer_begins_the_count_anew() -> None:
    assert reasons([SILENT, ANSWERS, SILENT, STARTING, SILENT, busy(0), SILENT]) == []


def test_a_machine_that_slept_has_seen_no_hang() -> None:
    assert reasons([SILENT], each_s=3600) == []


@pytest.mark.parametrize(
    "engines,expected",
    [
        ([], SILENT),
        ([("dead", 3.0)], SILENT),
        ([("ready", None)], SILENT),
        ([("ready", 90.0)], busy(90.0)),
        ([("ready", 90.0), ("ready", 2.0), ("dead", 0.1)], busy(2.0)),
        ([("ready", 90.0), ("starting", None)], STARTING),
        ([("restarting", None)], STARTING),
        ([("restarting", None), ("dead", None)], STARTING),
    ],
)
def test_what_the_engines_do(engines: list[tuple[str, float | None]], expected: Sign) -> None:
    told = [{"state": state, "seconds_since_step": age} for state, age in engines]
    assert sign_of({"engines": told}) == expected


def test_pauses_between_restarts_grow_and_are_forgotten() -> None:
    pauses, now = Pauses(), 1000.0
    assert pauses.allow(now)
    lengths = []
    for _ in range(8):
        pauses.restarted(now)
        lengths.append(pauses.pause_s)
        assert not pauses.allow(now + pauses.pause_s - 0.1)
        now += pauses.pause_s
        assert pauses.allow(now)
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (FIRST_PAUSE_S, LONGEST_PAUSE_S)
    pauses.restarted(now + 3600)
    assert pauses.pause_s == FIRST_PAUSE_S


def test_one_restart_a_hang(capsys: pytest.CaptureFixture[str]) -> None:
    restarts: list[float] = []
    settings = RuntimeSettings.from_env({"WATCHDOG_STALL_S": "60"})
    watchdog = Watchdog(settings, lambda: SILENT, lambda: restarts.append(1))
    for look in range(1, 5):
        watchdog.judge(SILENT, 30.0, now=30.0 * look)
    assert len(restarts) == 2, "60 s after the first one there was still no sign of life"
    assert capsys.readouterr().out.count("restarting Triton: no token for") == 2
