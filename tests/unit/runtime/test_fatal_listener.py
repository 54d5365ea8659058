from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import fatal_listener
from runtime.fatal_listener import Event, RestartWatch, Watch, give_up, judge, read_event

NOWHERE = ("127.0.0.1", 1)


@pytest.fixture
def loaded_triton() -> Iterator[tuple[str, int]]:
    """An address where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def supervisord() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be ended."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        yield process
        process.kill()


def message(name: str, payload: str = "") -> bytes:
    """An event as supervisord writes it."""
    header = f"ver:3.0 server:supervisor serial:21 pool:listener poolserial:10 eventname:{name} len:{len(payload)}\n"
    return (header + payload).encode()


def process_event(state: str, program: str) -> bytes:
    return message(
        f"PROCESS_STATE_{state}", f"processname:{program} groupname:{program} from_state:RUNNING expected:0 pid:7"
    )


def fresh_watch(most: int = 5) -> Watch:
    return Watch(RestartWatch(most, window_s=600))


def listen(events: io.BytesIO, answers: io.BytesIO, address: tuple[str, int]) -> str | None:
    return fatal_listener.listen(events, answers, address, fresh_watch())


TICK = message("TICK_5", "when:1201063880")


def test_events_are_read_one_after_the_other() -> None:
    stream = io.BytesIO(process_event("FATAL", "gateway") + TICK)
    assert read_event(stream) == Event("PROCESS_STATE_FATAL", "gateway")
    assert read_event(stream) == Event("TICK_5", "")
    assert read_event(stream) is None


def test_a_fatal_program_is_given_up_at_once() -> None:
    answers = io.BytesIO()
    reason = listen(io.BytesIO(TICK + process_event("FATAL", "gateway")), answers, NOWHERE)
    assert reason is not None
    assert reason.startswith("gateway ")
    assert answers.getvalue() == b"READY\nRESULT 2\nOKREADY\n"


def test_the_end_of_supervisord_is_no_reason() -> None:
    assert listen(io.BytesIO(TICK), io.BytesIO(), NOWHERE) is None


def test_three_loads_that_fail_in_a_row_are_enough() -> None:
    end = process_event("EXITED", "triton")
    assert listen(io.BytesIO((TICK + end) * 2), io.BytesIO(), NOWHERE) is None
    reason = listen(io.BytesIO((TICK + end) * 3), io.BytesIO(), NOWHERE)
    assert reason == "triton ended 3 times without having loaded its model"


def test_crashes_of_a_triton_that_had_loaded_its_model_are_counted_apart(loaded_triton: tuple[str, int]) -> None:
    end = TICK + process_event("EXITED", "triton")
    assert listen(io.BytesIO(end * 5), io.BytesIO(), loaded_triton) is None
    reason = listen(io.BytesIO(end * 6), io.BytesIO(), loaded_triton)
    assert reason == "triton ended 6 times within 600 s"


def test_ends_that_lie_far_apart_do_not_add_up() -> None:
    restarts = RestartWatch(most=2, window_s=10)
    for now in (0.0, 6.0, 12.0, 18.0, 24.0):
        restarts.saw_exit(now)
        assert not restarts.too_many
    restarts.saw_exit(25.0)
    assert restarts.too_many


@pytest.mark.parametrize(
    "program,loss",
    [
        ("watchdog", "a hung model will not be noticed"),
        ("webui", "there is no web page"),
        ("mps", "the engines of a GPU compute in turns"),
    ],
)
def test_the_service_goes_on_without_what_it_can_spare(
    program: str, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listen(io.BytesIO(process_event("FATAL", program)), io.BytesIO(), NOWHERE) is None
    assert capsys.readouterr().err == f"{program} cannot be kept running: {loss}\n"


def test_a_load_that_succeeds_begins_the_count_anew(loaded_triton: tuple[str, int]) -> None:
    watch = fresh_watch()
    end, tick = Event("PROCESS_STATE_EXITED", "triton"), Event("TICK_5", "")
    for address, event in [(NOWHERE, end), (NOWHERE, end), (loaded_triton, tick), (NOWHERE, end), (NOWHERE, end)]:
        assert judge(event, watch, address) is None
    assert watch.loads.failures == 1


def test_other_programs_may_end_as_often_as_they_like() -> None:
    assert listen(io.BytesIO(process_event("EXITED", "gateway") * 10), io.BytesIO(), NOWHERE) is None


def test_the_reason_reaches_the_launcher_without_a_disk(tmp_path: Path, supervisord: subprocess.Popen[bytes]) -> None:
    os.mkfifo(tmp_path / "pipe")
    launcher = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert os.read(launcher, 100) == b""
        give_up("gateway cannot be kept running", tmp_path / "pipe", supervisord.pid)
        assert os.read(launcher, 100) == b"gateway cannot be kept running"
    finally:
        os.close(launcher)
    assert supervisord.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("launcher", ["gone", "without its folder"])
def test_supervisord_is_ended_though_the_launcher_cannot_be_told(
    tmp_path: Path, supervisord: subprocess.Popen[bytes], launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if launcher == "gone":
        os.mkfifo(tmp_path / "pipe")
    give_up("triton ended 6 times within 600 s", tmp_path / "pipe", supervisord.pid)
    assert supervisord.wait(10) == -signal.SIGTERM
    assert capsys.readouterr().err.startswith("gave up: triton ended 6 times within 600 s (the launcher cannot be told")
