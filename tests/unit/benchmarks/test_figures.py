"""What the benchmarks make of their measurements, and what they ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, shapes, workload
from benchmarks.errors import PeerFailed
from benchmarks.http_client import Address, Connection, ask_all, request
from benchmarks.results import Report, ratio
from benchmarks.side_by_side import Job, Latency, Plan, measure, report_all
from benchmarks.variants import VARIANTS
from benchmarks.workload import ROOT
from llm_model.settings import ModelSettings


class FakePeer:
    """Takes as many seconds as it is told, and notes when it was asked."""

    running = 0

    def __init__(
        self, name: str, seconds: float, asked: list[tuple[str, tuple[str, ...]]], fails: bool = False
    ) -> None:
        self.name = name
        self._seconds = seconds
        self._asked = asked
        self._fails = fails

    def __enter__(self) -> FakePeer:
        if self._fails:
            raise PeerFailed(f"{self.name} does not start")
        assert FakePeer.running == 0, "never two at a time"
        FakePeer.running += 1
        return self

    def __exit__(self, *exc: object) -> None:
        FakePeer.running -= 1

    def batch_s(self, work: workload.Workload) -> float:
        self._asked.append((self.name, work.questions))
        return self._seconds


class FakeServer(FakePeer):
    """Can be asked by clients too: each takes half a second."""

    def __init__(self, name: str, seconds: float, asked: list[tuple[str, tuple[str, ...]]]) -> None:
        super().__init__(name, seconds, asked)
        self.clients: list[int] = []

    def clients_s(self, work: workload.Workload, clients: int) -> tuple[float, list[float]]:
        self.clients.append(clients)
        return 0.5, [0.25] * len(work.questions)


def make(number: int) -> workload.Workload:
    return workload.make(4, 8, number, environ={"SHARED_DIR": "/nowhere"})


JOB = Job("batch", "tokens/s", 8, make)  # of four questions


def test_peers_take_turns_with_the_same_questions_and_a_warm_up_that_does_not_count() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    found = measure([lambda: FakePeer("a", 2, asked), lambda: FakePeer("b", 4, asked)], [JOB], Plan(2, 3))
    assert found == {"batch": {"a": [16.0] * 6, "b": [8.0] * 6}}
    assert [name for name, _ in asked[::4]] == ["a", "b", "b", "a"]
    questions = {name: [texts for who, texts in asked if who == name] for name in ("a", "b")}
    assert questions["a"] == questions["b"]
    assert len(set(questions["a"])) == 8, "other questions in every repeat"


def test_a_peer_that_fails_is_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = measure([lambda: FakePeer("a", 2, []), lambda: FakePeer("b", 4, [], fails=True)], [JOB], Plan(2, 1))
    assert list(found["batch"]) == ["a"]
    assert capsys.readouterr().out.count("b does not start") == 1


def test_one_start_serves_every_job_that_suits_the_peer() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    for_servers = Job("clients", "prompts/s", 1, make, clients=2)
    offline, server = FakePeer("offline", 2, asked), FakeServer("server", 2, asked)
    found = measure([lambda: offline, lambda: server], [JOB, for_servers], Plan(1, 1))
    assert found == {"batch": {"offline": [16.0], "server": [16.0]}, "clients": {"server": [8.0]}}
    assert server.clients == [2, 2], "the warm-up too"


def test_a_latency_is_a_median_in_milliseconds_of_which_less_is_better() -> None:
    job = Latency("one client", "ms", 1, make, clients=1)
    found = measure([lambda: FakeServer("server", 2, [])], [job], Plan(1, 2))
    assert found == {"one client": {"server": [250.0, 250.0]}}
    assert not report_all(Report("A run", {}, {}), [job], found)["one client"]["server"].higher


def test_questions_are_the_same_for_the_same_number_only() -> None:
    assert make(1) == make(1)
    assert make(1).questions != make(2).questions
    assert make(1).system_prompt != make(2).system_prompt, "a repeat must not find another's prefix cache"


def test_a_plain_workload_has_an_exact_length_and_no_penalties() -> None:
    assert make(1).sampling["ignore_eos"] is True
    assert make(1).sampling["repetition_penalty"] == 1.0
    defaults = workload.make(1, 8, 1, plain=False, environ={}).predict_body
    assert (defaults["repetition_penalty"], defaults["frequency_penalty"], defaults["ignore_eos"]) == (1.05, 0.1, False)


def test_a_report_has_medians_spread_targets_and_conditions(tmp_path: Path) -> None:
    report = Report("A run", {"cores": 2}, {"model": "m"})
    ours = report.add("batch", "ours", "tokens/s", [50.0, 100.0, 25.0])
    theirs = report.add("batch", "theirs", "tokens/s", [25.0])
    report.judge("P5", "batch", "≥ 1.0", f"{ratio(ours, theirs):.2f}", met=ratio(ours, theirs) >= 1)
    file = report.write(tmp_path, "run")
    assert json.loads(file.read_text())["figures"][0]["values"] == [50.0, 100.0, 25.0]
    text = file.with_suffix(".md").read_text()
    assert "| P5 | batch | ≥ 1.0 | 2.00 | yes |" in text
    assert "| batch | ours | 50 | 25 – 100 | tokens/s | 3 |" in text
    assert "- cores: 2" in text


def test_a_report_has_a_table_for_the_curves_of_one_thing(tmp_path: Path) -> None:
    report = Report("A run", {}, {})
    report.draw("batch", "ours", "engines", "tokens/s", {1: [20.0, 10.0, 30.0], 2: [40.0]})
    report.draw("batch", "theirs", "engines", "tokens/s", {1: [5.0]})
    text = report.write(tmp_path, "run").with_suffix(".md").read_text()
    assert "| engines | ours | theirs |" in text
    assert "| 1 | 20 (10 – 30) | 5 |" in text
    assert "| 2 | 40 | – |" in text
    assert "| target |" not in text, "no empty tables"


async def test_the_client_reads_a_body_in_chunks() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\nb\r\n, and more.\r\n0\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    async with server:
        connection = await Connection.open(address)
        assert await connection.ask(request(address, "/generate", {})) == b"yes, and more."
        await connection.close()


async def test_the_client_sends_each_message_once_and_reads_whole_bodies() -> None:
    got: list[Any] = []
    left = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client has closed
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                got.append(json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
        writer.close()
        await writer.wait_closed()
        left.release()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    async with server:
        messages = [request(address, "/predict", {"n": number}) for number in range(20)]
        seconds, each = await ask_all(address, messages, clients=3)
        for _ in range(3):
            await asyncio.wait_for(left.acquire(), 30)
    assert sorted(body["n"] for body in got) == list(range(20))
    assert len(each) == 20
    assert seconds > 0


def test_shapes_are_told_as_vllm_reads_them() -> None:
    told = shapes.config("0.5B", {"eos_token_id": 2, "bos_token_id": None})
    assert (told["num_hidden_layers"], told["hidden_size"], told["eos_token_id"]) == (24, 896, 2)
    assert "bos_token_id" not in told


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_sets_what_the_service_or_vllm_reads(settings: dict[str, str]) -> None:
    (name,) = settings
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8") or name == "VLLM_USE_V2_MODEL_RUNNER"
    ModelSettings.from_env(settings)


def test_the_default_run_has_no_variants() -> None:
    assert not [part for part in gpu.PARTS if part.startswith("variants")]
    assert set(gpu.BY_NAME) - set(gpu.PARTS) == {"variants-0.5B", "variants-1.7B", "variants-4B"}
