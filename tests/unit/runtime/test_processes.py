from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import processes

# A process that has a child that has a child; the innermost says its pid and heeds no SIGTERM.
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
INNER = STUBBORN + "print(os.getpid(), flush=True); time.sleep(60)"
NESTED = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {INNER!r}])"
OUTER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {NESTED!r}])"


@pytest.fixture
def tree() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The outer process, and the pid of the innermost."""
    with subprocess.Popen([sys.executable, "-c", OUTER], stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        innermost = int(outer.stdout.readline())
        yield outer, innermost
        processes.send([outer.pid, innermost], signal.SIGKILL)


def test_descendants_of_all_generations(tree: tuple[subprocess.Popen[bytes], int]) -> None:
    outer, innermost = tree
    below = processes.descendants(outer.pid)
    assert len(below) == 2
    assert innermost in below
    assert processes.children(outer.pid) == [pid for pid in below if pid != innermost]
    assert outer.pid in processes.children(os.getpid())


def test_all_of_them_are_ended(tree: tuple[subprocess.Popen[bytes], int]) -> None:
    outer, innermost = tree
    script = (
        "import os, sys; from runtime import processes; processes.adopt_orphans();"
        "import subprocess; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE);"
        "p.stdout.readline(); left = processes.end_all(os.getpid(), 0.2);"
        "p.returncode = 0; print(left, processes.descendants(os.getpid()))"
    )
    run = [sys.executable, "-c", script, OUTER]
    assert subprocess.run(run, capture_output=True, timeout=30, check=True).stdout == b"[] []\n"
    assert innermost in processes.descendants(outer.pid), "nobody else's"


def test_shared_memory_of_killed_processes_is_tidied_up() -> None:
    """The tracker that does it is a process too, and must be given the time."""
    owner = (
        "import time; from multiprocessing.shared_memory import SharedMemory;"
        "print(SharedMemory(create=True, size=16).name, flush=True); time.sleep(60)"
    )
    script = (
        "import os, subprocess, sys; from runtime import processes; processes.adopt_orphans();"
        "p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL);"
        "print(p.stdout.readline().decode().strip()); left = processes.end_all(os.getpid(), 0); p.returncode = 0;"
        "print(left)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, owner], capture_output=True, text=True, timeout=30, check=True
    )
    name, left = result.stdout.split()
    assert left == "[]"
    assert not Path("/dev/shm", name).exists()


def test_the_child_of_a_process_whose_first_thread_has_ended_is_found_and_ended() -> None:
    """As a program with threads dies: it looks ended, while a thread of it lives and so does its child."""
    half_dead = (
        "import ctypes, subprocess, sys, threading, time; threading.Thread(target=time.sleep, args=(60,)).start();"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdout=subprocess.DEVNULL);"
        "print(p.pid, flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    script = (
        "import os, subprocess, sys, time; from runtime import processes; processes.adopt_orphans();"
        "p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE);"
        "child = int(p.stdout.readline()); p.returncode = 0\n"
        "while p.pid in processes.children(os.getpid()): time.sleep(0.01)\n"
        "print(processes.descendants(os.getpid()) == [child], processes.end_all(os.getpid(), 0), "
        "os.path.exists(f'/proc/{child}'))"
    )
    run = [sys.executable, "-c", script, half_dead]
    assert subprocess.run(run, capture_output=True, timeout=30, check=True).stdout == b"True [] False\n"


def test_strays_are_what_the_launcher_has_beside_supervisord(tree: tuple[subprocess.Popen[bytes], int]) -> None:
    outer, innermost = tree
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as supervisord:
        found = processes.strays(os.getpid(), supervisord.pid)
        assert {outer.pid, innermost} <= set(found)
        assert supervisord.pid not in found
        assert innermost not in processes.strays(os.getpid(), outer.pid)
        assert processes.strays(outer.pid, supervisord.pid) == [], "not this one's launcher"
        supervisord.communicate(b"\n")


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
    assert child.pid not in processes.children(os.getpid())
    child.wait()


def test_an_environment_is_looked_into() -> None:
    command = [sys.executable, "-c", "input(print('up', flush=True) or '')"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={"WHO": "gateway"}, **pipes) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"  # right after the fork it is still another program's
        assert processes.environment_has(child.pid, b"WHO=gateway")
        assert not processes.environment_has(child.pid, b"WHO=gate")
        child.communicate(b"\n")
    assert not processes.environment_has(child.pid, b"WHO=gateway")


def test_a_signal_to_a_process_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    processes.send([child.pid], signal.SIGTERM)
