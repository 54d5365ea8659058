"""``python -m tools.evaluate`` against a small service in this process."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.tools.fakes.service import FakeService
from tools.console import run
from tools.evaluate.__main__ import main
from tools.evaluate.player import Plan, play
from tools.evaluate.summary import percentile

QUESTIONS = {f"第{number}问": f"答案 {number}" for number in range(10)}


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "set.jsonl"
    rows = [{"prompt": prompt, "reference": reference} for prompt, reference in QUESTIONS.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def evaluate(*arguments: object) -> int:
    return run(main, ["run", *map(str, arguments)])


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def details(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_perfect_service_passes_and_leaves_its_files(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeService(QUESTIONS.__getitem__) as service:
        assert evaluate(questions, "--url", service.url, "--threshold", 0.99, "--out", tmp_path / "run") == 0
    assert len(service.requests) == 10  # the health check did not say `batch`
    assert service.most_at_once == 1
    found = summary(tmp_path / "run")
    assert found["score"] == pytest.approx(1, abs=1e-6)
    assert (found["questions"], found["answered"], found["failed"], found["passed"]) == (10, 10, 0, True)
    assert (found["model"], found["tokens_per_s"]) == ("fake-model", None)  # nobody told the model's folder
    assert found["characters_per_s"] > 0
    assert set(found["latency_s"]) == {"p50", "p90", "p95", "p99"}
    assert [one["answer"] for one in details(tmp_path / "run")] == list(QUESTIONS.values())
    assert (tmp_path / "run" / "score_by_length.png").read_bytes().startswith(b"\x89PNG")
    assert "PASSED  (threshold 0.99)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "mode", "requests"), [("batch", "auto", 1), ("ok", "batch", 1), ("batch", "1", 10), ("ok", "4", 10)]
)
def test_how_it_asks(questions: Path, status: str, mode: str, requests: int) -> None:
    with FakeService(QUESTIONS.__getitem__, status=status) as service:
        assert evaluate(questions, "--url", service.url, "--mode", mode, "--threshold", 0.99) == 0
    assert len(service.requests) == requests
    if requests == 1:
        assert service.requests[0]["prompt"] == list(QUESTIONS)


def test_a_proxy_of_the_environment_is_not_asked(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FakeService(QUESTIONS.__getitem__) as service:
        arguments = ("--url", service.url, "--threshold", 0.99, "--ready-timeout", 1, "--out", tmp_path / "run")
        assert evaluate(questions, *arguments) == 0
    assert summary(tmp_path / "run")["model"] == "fake-model"


def test_so_many_questions_are_on_their_way_at_a_time(questions: Path) -> None:
    with FakeService(QUESTIONS.__getitem__, barrier=threading.Barrier(5)) as service:
        assert evaluate(questions, "--url", service.url, "--mode", 5) == 0
    assert service.most_at_once == 5


def test_options_of_the_request(questions: Path) -> None:
    with FakeService(QUESTIONS.__getitem__) as service:
        evaluate(questions, "--url", service.url, "--max-new-tokens", 7, "--limit", 2)
    assert [request["max_new_tokens"] for request in service.requests] == [7, 7]


def test_a_low_score_does_not_pass_and_the_worst_are_shown(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeService(lambda prompt: "不知道" if prompt == "第3问" else QUESTIONS[prompt]) as service:
        assert evaluate(questions, "--url", service.url, "--threshold", 0.95, "--worst", 1) == 1
    shown = capsys.readouterr().out
    assert "worst       0.0000  question 3: 第3问" in shown
    assert "score       0.9000" in shown
    assert "NOT PASSED" in shown


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((500, {"error": {"message": "broken"}}), "status 500: broken"),
        ((502, b"<html>"), "status 502: <html>"),
        ((200, b"no json"), "not the documented JSON"),
        ((200, ["x"]), "not the documented JSON"),
        ((200, {"response": ["x"]}), "has not 10 texts"),
        ((200, {"response": [None] * 10}), "has not 10 texts"),
    ],
)
def test_a_service_that_answers_badly_fails_every_question(
    questions: Path, tmp_path: Path, reply: tuple[int, Any], reason: str
) -> None:
    with FakeService(str, status="batch", reply=lambda prompt: reply) as service:
        assert evaluate(questions, "--url", service.url, "--out", tmp_path / "run") == 1
    assert all(reason in one["error"] and one["score"] == 0 for one in details(tmp_path / "run"))


def test_a_failed_question_of_a_batch_costs_only_its_own_score(questions: Path, tmp_path: Path) -> None:
    def reply(prompts: list[str]) -> tuple[int, Any]:
        texts = ["" if prompt == "第0问" else QUESTIONS[prompt] for prompt in prompts]
        return 200, {"response": texts, "errors": [{"index": 0, "type": "invalid_value", "message": "too long"}]}

    with FakeService(str, status="batch", reply=reply) as service:
        assert evaluate(questions, "--url", service.url, "--out", tmp_path / "run") == 1
    found = summary(tmp_path / "run")
    assert (found["failed"], round(found["score"], 4)) == (1, 0.9)
    assert details(tmp_path / "run")[0]["error"] == "too long"


@pytest.mark.parametrize("mode", ["batch", "1", "4"])
def test_it_stops_when_the_time_is_over(questions: Path, tmp_path: Path, mode: str) -> None:
    arguments = ("--mode", mode, "--total-timeout", 0.5, "--out", tmp_path / "run", "--no-plot")
    with FakeService(QUESTIONS.__getitem__, held=threading.Event()) as service:
        assert evaluate(questions, "--url", service.url, *arguments) == 1
    assert all("before the time was over" in one["error"] for one in details(tmp_path / "run"))
    assert summary(tmp_path / "run")["elapsed_s"] < 30


def test_answers_that_came_in_time_count() -> None:
    held = threading.Event()

    def answer(prompt: str) -> str:
        if prompt == "hangs":
            held.wait(timeout=60)
        return prompt

    with FakeService(answer) as service:
        played = play(Plan(service.url, concurrency=2, total_s=6), ["a", "hangs", "b"])
        held.set()
    assert [one.text for one in played.answers] == ["a", "", "b"]
    assert [bool(one.error) for one in played.answers] == [False, True, False]


def test_it_waits_for_health(questions: Path) -> None:
    with FakeService(QUESTIONS.__getitem__, unready=2) as service:
        assert evaluate(questions, "--url", service.url) == 0


def test_a_service_that_never_gets_healthy(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeService(QUESTIONS.__getitem__, unready=1000) as service:
        assert evaluate(questions, "--url", service.url, "--ready-timeout", 1) == 1
    assert "did not answer 200 within 1 s; last seen: status 503" in capsys.readouterr().err


def test_a_connection_that_breaks_is_a_failed_question(questions: Path, tmp_path: Path) -> None:
    with FakeService(str, reply=lambda prompt: 1 / 0) as service:  # type: ignore[arg-type,return-value]
        assert evaluate(questions, "--url", service.url, "--out", tmp_path / "run") == 1
    assert all("no answer: RemoteProtocolError" in one["error"] for one in details(tmp_path / "run"))


def test_tokens_are_counted_by_the_models_own_tokenizer(questions: Path, tmp_path: Path, course_qa_model: Path) -> None:
    arguments = ("--tokenizer", course_qa_model, "--out", tmp_path / "run")
    with FakeService(lambda prompt: "数据并行性是指") as service:
        evaluate(questions, "--url", service.url, *arguments)
    counts = {one["tokens"] for one in details(tmp_path / "run")}
    assert len(counts) == 1
    assert 1 <= counts.pop() < len("数据并行性是指")  # its vocabulary was trained on such words
    found = summary(tmp_path / "run")
    assert found["tokens_per_s"] == pytest.approx(found["tokens"] / found["elapsed_s"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--mode", "fast"], "--mode fast: auto, batch, or a number"),
        (["--mode", "0"], "--mode 0"),
        (["--threshold", "2"], "--threshold 2: 0 to 1"),
        (["--limit", "0"], "--limit 0: at least 1"),
        (["--url", "localhost"], "--url localhost: must begin with http"),
        (["--tokenizer", "/nowhere"], "no tokenizer.json"),
    ],
)
def test_what_makes_no_sense_is_refused(
    questions: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert evaluate(questions, *arguments) == 2
    assert reason in capsys.readouterr().err


def test_two_runs_side_by_side(questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, good in (("old", 5), ("new", 9)):
        answers = {prompt: text if number < good else "x" for number, (prompt, text) in enumerate(QUESTIONS.items())}
        with FakeService(answers.__getitem__) as service:
            evaluate(questions, "--url", service.url, "--out", tmp_path / name, "--no-plot")
    capsys.readouterr()
    json_file = tmp_path / "compared.json"
    assert run(main, ["compare", str(tmp_path / "old"), str(tmp_path / "new"), "--json", str(json_file)]) == 0
    shown = capsys.readouterr().out
    assert "4 questions better, 0 worse, of 10" in shown
    assert "0.0000 → 1.0000  question 5: 第5问" in shown
    compared = json.loads(json_file.read_text(encoding="utf-8"))
    assert compared["after"]["score"] - compared["before"]["score"] == pytest.approx(0.4, abs=1e-6)


def test_runs_over_other_questions_are_not_compared(questions: Path, tmp_path: Path) -> None:
    for name, limit in (("old", 5), ("new", 9)):
        with FakeService(QUESTIONS.__getitem__) as service:
            evaluate(questions, "--url", service.url, "--out", tmp_path / name, "--limit", limit, "--no-plot")
    assert run(main, ["compare", str(tmp_path / "old"), str(tmp_path / "new")]) == 2
    assert run(main, ["compare", str(tmp_path / "old"), str(tmp_path / "nowhere")]) == 2


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(number) for number in range(1, 11)]
    assert [percentile(values, rank) for rank in (50, 90, 95, 99)] == [5, 9, 10, 10]
    assert percentile([3.0], 50) == 3
