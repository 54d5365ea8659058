"""The launcher with the real supervisord: it starts, keeps running, drains, gives up, and leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.integration.runtime.project import Project, Service, is_running, wait_for

pytestmark = pytest.mark.timeout(60)


class SlowRequest:
    """A request that is running while the test goes on."""

    def __init__(self, service: Service, port: int, seconds: float) -> None:
        self.status: int | None = None
        self._thread = threading.Thread(target=self._run, args=(port, seconds), daemon=True)
        self._thread.start()
        service.wait_for_line("slow request begins")

    def _run(self, port: int, seconds: float) -> None:
        self.status = get(port, f"/slow?{seconds}")

    def answered(self) -> int | None:
        self._thread.join(20)
        return self.status


def get(port: int, path: str = "/") -> int | None:
    """The status, None without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def all_pids(service: Service) -> list[int]:
    """The processes of a service that is up, the engine that its Triton leaves behind included."""
    programs = [service.pid_of(name) for name in ("gateway", "tritonserver", "engine")]
    return [service.process.pid, service.supervisord(), *programs]


def assert_nothing_left(pids: list[int]) -> None:
    assert [pid for pid in pids if is_running(pid)] == []


def test_it_says_ready_once_and_a_first_sigterm_finishes_what_runs(project: Project) -> None:
    service = project.start(API_KEY="key-%(that)s", ADMIN_TOKEN="token-of-the-admin")
    ready = service.wait_for_line("ready after")
    assert f"http://127.0.0.1:{project.ports[0]}/predict" in ready
    assert "curl" in ready
    pids = all_pids(service)
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"key-%" not in command
        assert b"token-of" not in command
    assert b"key-%(that)s" in Path(f"/proc/{service.pid_of('gateway')}/environ").read_bytes()
    assert b"key-%" not in Path(f"/proc/{service.pid_of('tritonserver')}/environ").read_bytes()

    slow = SlowRequest(service, project.ports[0], 2)
    service.signal(signal.SIGTERM)
    service.wait_for_line("gateway drains")
    assert get(project.ports[0], "/slow?0") == 503
    assert is_running(service.pid_of("tritonserver")), "Triton stops after the gateway"
    assert slow.answered() == 200
    assert service.wait() == 0
    assert_nothing_left(pids)
    text = service.text()
    assert text.count("ready after") == 1
    assert "mps" not in text
    assert text.index("stopped: gateway") < text.index("stopped: triton")
    assert "key-%" not in text
    assert "token-of" not in text


def test_the_gateway_finds_a_triton_that_listens_elsewhere(project: Project) -> None:
    service = project.start(TRITON_GRPC_ADDRESS="127.0.0.2")
    assert f"Triton gRPC 127.0.0.2:{project.ports[1]}," in service.wait_for_line("ready after")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_the_mps_daemon_is_there_before_triton_and_until_it_has_gone(project: Project) -> None:
    service = project.start(**project.add_nvidia_mps())
    service.wait_for_line("ready after")
    daemon, triton = service.pid_of("mps"), service.pid_of("tritonserver")
    told = Path(f"/proc/{triton}/environ").read_bytes().split(b"\0")
    pipes = next(pair for pair in told if pair.startswith(b"CUDA_MPS_PIPE_DIRECTORY="))
    assert pipes in Path(f"/proc/{daemon}/environ").read_bytes().split(b"\0"), "Triton uses this daemon"
    os.kill(daemon, signal.SIGKILL)
    pids = [*all_pids(service), service.pid_of("mps", times=2)]
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert_nothing_left(pids)
    text = service.text()
    assert text.index("spawned: 'mps'") < text.index("spawned: 'triton'")
    assert text.index("stopped: triton") < text.index("stopped: mps")


def test_a_second_sigterm_ends_everything_at_once_with_an_answer(project: Project) -> None:
    service = project.start(SHUTDOWN_GRACE_S="60")
    service.wait_for_line("ready after")
    pids = all_pids(service)
    slow = SlowRequest(service, project.ports[0], 50)
    service.signal(signal.SIGTERM)
    service.wait_for_line("gateway drains")
    service.signal(signal.SIGTERM)
    assert service.wait(6) == 128 + signal.SIGTERM
    assert slow.answered() == 503
    assert_nothing_left(pids)


def test_two_signals_in_a_row_end_everything_too(project: Project) -> None:
    """Before supervisord has passed the first one on."""
    service = project.start(SHUTDOWN_GRACE_S="60")
    service.wait_for_line("ready after")
    pids = all_pids(service)
    slow = SlowRequest(service, project.ports[0], 50)
    service.signal(signal.SIGINT)
    service.wait_for_line("SIGINT: finishing")
    service.signal(signal.SIGTERM)
    assert service.wait(6) == 128 + signal.SIGTERM
    assert slow.answered() == 503
    assert_nothing_left(pids)


def test_sigterm_to_supervisord_drains_as_well(project: Project) -> None:
    service = project.start()
    service.wait_for_line("ready after")
    pids = all_pids(service)
    slow = SlowRequest(service, project.ports[0], 1)
    os.kill(service.supervisord(), signal.SIGTERM)
    assert slow.answered() == 200
    assert service.wait() == 0
    assert_nothing_left(pids)


def test_nothing_outlives_a_killed_supervisord(project: Project) -> None:
    service = project.start(FAKE_STUBBORN_ENGINE="1")
    service.wait_for_line("ready after")
    pids = all_pids(service)
    os.kill(service.supervisord(), signal.SIGKILL)
    assert service.wait() == 1
    assert "supervisord ended by itself" in service.text()
    assert_nothing_left(pids)


def test_a_killed_launcher_takes_the_programs_along(project: Project) -> None:
    service = project.start()
    service.wait_for_line("ready after")
    pids = [service.supervisord(), service.pid_of("gateway"), service.pid_of("tritonserver")]
    service.signal(signal.SIGKILL)
    service.wait()
    wait_for(lambda: not any(map(is_running, pids)), "the programs end")
    os.kill(service.pid_of("engine"), signal.SIGKILL)  # this Triton does not stop its engine, and its adopter is gone


def test_killed_programs_come_back_and_leave_no_orphan(project: Project) -> None:
    service = project.start(FAKE_STUBBORN_ENGINE="1")
    service.wait_for_line("ready after")
    engine, triton, gateway = (service.pid_of(name) for name in ("engine", "tritonserver", "gateway"))
    os.kill(gateway, signal.SIGKILL)
    service.pid_of("gateway", times=2)
    assert is_running(triton), "Triton keeps its process"
    os.kill(triton, signal.SIGKILL)
    service.wait_for_line("tritonserver listens", times=2)
    wait_for(lambda: not is_running(engine), "the orphaned engine is ended")
    assert is_running(service.pid_of("engine", times=2)), "the new one is not"
    assert get(project.ports[0]) == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_model_that_cannot_be_loaded_ends_the_service_with_1(project: Project, other_project: Project) -> None:
    """Early, and so late that supervisord has called the program running."""
    conf = other_project.root / "supervisord.conf"
    text = conf.read_text()
    conf.unlink()
    conf.write_text(re.sub(r"startsecs=\d+", "startsecs=1", text))
    early = project.start(FAKE_FAIL="1")
    late = other_project.start(FAKE_FAIL="1", FAKE_LOAD_S="1.3")
    for service in (early, late):
        assert service.wait(40) == 1
        assert service.text().count("the model cannot be loaded") == 3
    assert "gave up: triton cannot be kept running" in early.lines[-1]
    assert "gave up: triton ended 3 times" in late.lines[-1]


def test_ctrl_c_in_a_terminal_drains(project: Project) -> None:
    terminal, inner = os.openpty()
    # The launcher becomes the foreground of this terminal, as it is when a person starts it.
    take_terminal = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(1, termios.TIOCSCTTY, 0); "
    launch = "os.execv(sys.executable, [sys.executable, '-m', 'runtime', 'serve'])"
    service = project.start("-c", take_terminal + launch, output=lambda: (terminal, inner))
    service.wait_for_line("ready after")
    pids = all_pids(service)
    slow = SlowRequest(service, project.ports[0], 1)
    os.write(terminal, b"\x03")
    assert slow.answered() == 200
    assert service.wait() == 0
    assert_nothing_left(pids)


def socket_ends() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def test_stdout_may_be_a_file(project: Project) -> None:
    log = project.root / "log"
    service = project.start(output=lambda: (os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT)))
    wait_for(lambda: "ready after" in log.read_text() and "tritonserver listens" in log.read_text(), "ready")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert log.read_text().endswith("stopped\n")


def test_stdout_may_be_a_socket_that_nobody_reads_any_more(project: Project) -> None:
    service = project.start(output=socket_ends)
    gateway = service.pid_of("gateway")
    service.wait_for_line("tritonserver listens")
    service.wait_for_line("ready after")
    service.stop_reading()
    os.kill(gateway, signal.SIGKILL)
    wait_for(lambda: get(project.ports[0]) is None, "gone")
    wait_for(lambda: get(project.ports[0]) == 200, "back, though what it prints cannot be written")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_signal_before_the_model_is_loaded_stops_too(project: Project) -> None:
    service = project.start(FAKE_LOAD_S="100")
    pids = [service.supervisord(), service.pid_of("gateway"), service.pid_of("tritonserver")]
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert_nothing_left(pids)


def test_all_that_is_wrong_is_told_before_anything_starts(project: Project) -> None:
    (project.root / "model/config.json").unlink()
    with socket.create_server(("127.0.0.1", project.ports[1])):
        service = project.start(FAKE_BAD_GATEWAY="1", FAKE_BAD_MODEL_SETTING="1")
        assert service.wait() == 1
    assert len(service.lines) == 4, service.text()
    assert all(line.startswith("cannot start: ") for line in service.lines)
    text = service.text()
    for part in ("LOG_FORMAT=xml", "DTYPE=float3", "config.json", f"port {project.ports[1]} is taken by", "(pid "):
        assert part in text


def test_preflight_alone_starts_nothing(project: Project) -> None:
    service = project.start("-m", "runtime", "preflight")
    assert service.wait() == 0
    assert "all checks passed" in service.text()
    assert "supervisord" not in service.text()
