from __future__ import annotations

import os
import threading

import pytest

from runtime.log_pump import LogPump


def read_all(descriptor: int) -> bytes:
    content = b""
    while chunk := os.read(descriptor, 1 << 16):
        content += chunk
    return content


class Output:
    """A pipe as stdout, read all the time, as a terminal is."""

    def __init__(self) -> None:
        self._read_end, self.fd = os.pipe()
        self._content = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        self._content = read_all(self._read_end)

    def close(self) -> list[bytes]:
        os.close(self.fd)
        self._thread.join()
        os.close(self._read_end)
        return self._content.split(b"\n")


def test_lines_of_several_programs_are_never_mixed() -> None:
    output = Output()
    pump = LogPump(output.fd)
    sources = [pump.open_source() for _ in range(3)]
    pump.start()

    def write(source: int, name: bytes) -> None:
        for number in range(300):
            for piece in (name, b" says ", b"%d" % number, b"\n"):  # as a program does that flushes in mid-line
                os.write(source, piece)

    writers = [threading.Thread(target=write, args=(source, b"%d" % source)) for source in sources]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    pump.finish(10)
    lines = output.close()
    for source in sources:
        mine = [line for line in lines if line.startswith(b"%d says " % source)]
        assert mine == [b"%d says %d" % (source, number) for number in range(300)]
    assert len(lines) == 901


def test_what_has_no_line_end_is_written_at_the_end() -> None:
    output = Output()
    pump = LogPump(output.fd)
    source = pump.open_source()
    pump.start()
    os.write(source, b"one\ntwo")
    pump.say("own line")
    pump.finish(10)
    assert sorted(output.close()) == [b"", b"one", b"own line", b"two"]


def test_an_endless_line_does_not_fill_the_memory() -> None:
    output = Output()
    pump = LogPump(output.fd)
    source = pump.open_source()
    pump.start()
    for _ in range(40):
        os.write(source, b"x" * 65536)
    pump.finish(10)
    lines = output.close()
    assert sum(map(len, lines)) == 40 * 65536
    assert max(map(len, lines)) < 2 << 20


def test_a_stdout_that_does_not_block_loses_nothing() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    pump = LogPump(write_end)
    source = pump.open_source()
    pump.start()
    content: list[bytes] = []
    # Until it begins to read, the pipes hold only a part of all.
    reader = threading.Timer(0.3, lambda: content.append(read_all(read_end)))
    reader.start()
    for number in range(5000):
        os.write(source, b"%060d\n" % number)
    pump.finish(10)
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert content[0] == b"".join(b"%060d\n" % number for number in range(5000))


@pytest.mark.parametrize("target", ["closed pipe", "/dev/full"])
def test_a_stdout_that_takes_nothing_stops_nothing(target: str) -> None:
    if target == "closed pipe":
        read_end, out = os.pipe()
        os.close(read_end)
    else:
        out = os.open(target, os.O_WRONLY)
    pump = LogPump(out)
    source = pump.open_source()
    pump.start()
    for _ in range(200):
        os.write(source, b"x" * 65535 + b"\n")  # would block if the pump had stopped reading
    pump.finish(10)
    os.close(out)


def test_own_lines_are_dropped_rather_than_waited_for() -> None:
    """A stdout that nobody reads must not keep the launcher from handling signals."""
    read_end, write_end = os.pipe()
    pump = LogPump(write_end)
    pump.start()
    for _ in range(1000):
        pump.say("x" * 1000)  # returns, though 64 KiB are all that fits
    drained = threading.Thread(target=read_all, args=(read_end,))
    drained.start()
    pump.finish(10)
    os.close(write_end)
    drained.join()
    os.close(read_end)
