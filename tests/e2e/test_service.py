"""The service as a whole: health, information, bad requests, clients that go away, the two backends, the end."""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, infer, requests_in_engines, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

QUESTIONS = ["Name three primary colours.", "法国的首都是哪里？", "What is 2 + 2?", "用一句话介绍你自己。"]


def error_of(reply: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"type", "message", "request_id"}
    assert error["request_id"] == reply.headers["x-request-id"]
    assert "Traceback" not in reply.text
    return error


def test_health_and_info(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/").json() == {"status": "ok"}
    assert httpx.get(f"{stack.url}/health/live").status_code == 200
    assert httpx.get(f"{stack.url}/health/ready").status_code == 200
    info = stack.info()
    assert info["backend"] == "vllm"
    assert [engine["state"] for engine in info["engines"]] == ["ready"]
    assert info["versions"]["vllm"]


def test_request_id_is_kept_or_made(stack: Stack) -> None:
    reply = httpx.post(f"{stack.url}/predict", json={"prompt": ""}, headers={"X-Request-Id": "course-7"})
    assert error_of(reply)["request_id"] == "course-7"
    assert len(error_of(httpx.post(f"{stack.url}/predict", json={"prompt": ""}))["request_id"]) >= 8


@pytest.mark.parametrize(
    "body, status, says",
    [
        (b"{", 422, ""),
        (b"[]", 422, ""),
        (b"{}", 422, "prompt"),
        (b'{"prompt": null}', 422, "prompt"),
        (b'{"prompt": 7}', 422, "prompt"),
        (b'{"prompt": ["a", 7]}', 422, "prompt"),
        (b'{"prompt": ""}', 400, "prompt"),
        (b'{"prompt": " \\n "}', 400, "prompt"),
        (b'{"prompt": ["", " "]}', 400, "prompt"),
        (b'{"prompt": "a", "temperature": -1}', 400, "temperature"),
        (b'{"prompt": "a", "max_new_tokens": 0}', 400, "max_new_tokens"),
        (b'{"prompt": "a", "top_p": 2}', 400, "top_p"),
        (b'{"prompt": "a", "temperature": NaN}', 422, ""),
        (b'{"prompt": "\xff"}', 422, ""),
        (b"[" * 10_000, 422, ""),
    ],
)
def test_bad_bodies(stack: Stack, body: bytes, status: int, says: str) -> None:
    reply = httpx.post(f"{stack.url}/predict", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert says in error_of(reply)["message"]


def test_odd_but_valid_texts_are_answered(stack: Stack) -> None:
    for text in ("emoji 👩‍💻", "NUL \u0000 within", "RTL \u202e mark"):
        assert isinstance(stack.predict(text, max_new_tokens=4), str)


def test_empty_list_and_unknown_fields(stack: Stack) -> None:
    assert stack.predict([]) == []
    assert isinstance(stack.predict("1 + 1 = ?", max_new_tokens=2, made_up_field={"x": 1}), str)


def test_prompt_length_limit_names_both_numbers(stack: Stack) -> None:
    limit = stack.info()["max_model_len"]
    reply = httpx.post(f"{stack.url}/predict", json={"prompt": "长" * 3 * limit}, timeout=60)
    assert reply.status_code == 400
    assert str(limit - 1) in error_of(reply)["message"]


def test_prompt_at_the_limit_passes_and_one_over_fails(stack: Stack) -> None:
    limit = stack.info()["max_model_len"] - 1

    def tokens(text: str) -> int:
        chat = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": text}])
        params = json.dumps({"max_tokens": 1})
        inputs = [strings("messages", [chat]), strings("sampling_parameters", [params])]
        answer = infer(stack.grpc_address, [*inputs, flag("return_num_input_tokens", True)])
        count: int = answer.responses[0]["num_input_tokens"][0]
        return count

    around = tokens(" a") - (tokens(" a a") - tokens(" a"))  # the template and the system prompt
    fits = " a" * (limit - around)
    assert tokens(fits) == limit
    options = {"max_new_tokens": 1, "system_prompt": "s"}
    assert httpx.post(f"{stack.url}/predict", json={"prompt": fits, **options}, timeout=60).status_code == 200
    assert httpx.post(f"{stack.url}/predict", json={"prompt": fits + " a", **options}, timeout=60).status_code == 400
    both = httpx.post(f"{stack.url}/predict", json={"prompt": [fits + " a", "a"], **options}, timeout=60).json()
    assert both["response"][0] == ""
    assert [error["index"] for error in both["errors"]] == [0]


def test_one_bad_question_costs_only_itself(stack: Stack) -> None:
    reply = httpx.post(f"{stack.url}/predict", json={"prompt": ["a", "", "b"], "max_new_tokens": 2}, timeout=60)
    assert reply.status_code == 200
    body = reply.json()
    assert body["response"][1] == ""
    assert len(body["response"]) == 3
    assert [error["index"] for error in body["errors"]] == [1]


def test_wrong_paths_and_methods_are_json(stack: Stack) -> None:
    assert error_of(httpx.get(f"{stack.url}/nowhere"))["type"]
    assert httpx.get(f"{stack.url}/nowhere").status_code == 404
    assert httpx.get(f"{stack.url}/predict").status_code == 405


@pytest.mark.parametrize("prompts", [["x"], ["x"] * 16])
def test_a_client_that_goes_away_frees_the_engine(stack: Stack, prompts: list[str]) -> None:
    body = {"prompt": prompts if len(prompts) > 1 else prompts[0], "max_new_tokens": 1500, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{stack.url}/predict", json=body, timeout=1.0)
    left_at = time.monotonic()
    stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 0, 20, "free again")
    assert time.monotonic() - left_at < 2.5  # 2 s, and the time that asking takes


def test_a_client_that_goes_away_leaves_those_beside_it_alone(stack: Stack) -> None:
    """Prompts that came at the same moment may share a request; leaving ends one's own only."""
    options = {"max_new_tokens": 1500, "ignore_eos": True, "system_prompt": "s"}
    with ThreadPoolExecutor(3) as clients:
        staying = [clients.submit(stack.predict, f"{n}?", **options) for n in range(2)]
        leaving = clients.submit(httpx.post, f"{stack.url}/predict", json={"prompt": "x", **options}, timeout=0.5)
        with pytest.raises(httpx.ReadTimeout):
            leaving.result()
        left_at = time.monotonic()
        stack.wait_for(lambda: requests_in_engines(stack.grpc_address) <= 2, 20, "free of the one")
        assert time.monotonic() - left_at < 2.5  # 2 s, and the time that asking takes
        assert all(isinstance(done.result(), str) for done in staying)


def test_health_stays_quick_while_ten_thousand_prompts_come_in(stack: Stack) -> None:
    """A full batch is answered in order and whole; the health check meanwhile answers quickly."""
    waits: list[float] = []
    finished = threading.Event()

    def poll() -> None:
        with httpx.Client() as client:
            while not finished.wait(0.02):
                started = time.monotonic()
                assert client.get(f"{stack.url}/").status_code == 200
                waits.append(time.monotonic() - started)

    prompts = [f"{n}?" for n in range(10_000)]
    with ThreadPoolExecutor(1) as poller:
        polling = poller.submit(poll)
        try:
            answers = stack.predict(prompts, max_new_tokens=1, system_prompt="s")
        finally:
            finished.set()
        polling.result()
    assert len(answers) == len(prompts)
    waits.sort()
    assert waits[int(len(waits) * 0.99)] < 0.1, f"p99 {waits[int(len(waits) * 0.99)]:.3f} s of {len(waits)}"


def test_bundled_model_through_vllm(bundled_vllm: Stack) -> None:
    answers_in_two_languages(bundled_vllm, "vllm")


def test_bundled_model_through_transformers(bundled_transformers: Stack) -> None:
    answers_in_two_languages(bundled_transformers, "transformers")
    assert bundled_transformers.info()["backend_reason"] == "USE_VLLM=false"


def answers_in_two_languages(stack: Stack, backend: str) -> None:
    assert stack.info()["backend"] == backend
    answers = stack.predict(QUESTIONS, max_new_tokens=24, system_prompt="You are a helpful assistant.")
    assert all(answer.strip() for answer in answers), answers
    for place, question in enumerate(QUESTIONS[:2]):
        single = stack.predict(question, max_new_tokens=24, system_prompt="You are a helpful assistant.")
        assert single == answers[place]
    chat = json.dumps([{"role": "user", "content": QUESTIONS[0]}])
    params = json.dumps({"max_tokens": 16, "temperature": 0})
    inputs = [strings("messages", [chat]), strings("sampling_parameters", [params])]
    streamed = infer(stack.grpc_address, [*inputs, flag("stream", True)])
    assert len(streamed.responses) > 1
    assert streamed.joined() == infer(stack.grpc_address, inputs).joined() != ""


def test_drain_finishes_running_requests_and_refuses_new_ones(
    default_model: Path, is_quick: bool, tmp_path: Path, stacks: Any
) -> None:
    """SIGTERM under load: what runs is answered, what comes is told 503, the exit code is 0, nothing is left."""
    stacks.stop()
    stack = Stack.start({"MODEL_DIR": str(default_model), "SHUTDOWN_GRACE_S": "60"}, tmp_path / "log")
    try:
        with ThreadPoolExecutor(4) as clients:
            tokens = 1500 if is_quick else 300  # some seconds
            options = {"max_new_tokens": tokens, "ignore_eos": True, "system_prompt": "s"}
            running = [clients.submit(stack.predict, f"{n}?", **options) for n in range(4)]
            stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 4, 20, "working")
            stack.process.send_signal(signal.SIGTERM)
            stack.wait_for(lambda: httpx.get(f"{stack.url}/").status_code == 503, 10, "draining")
            refused = httpx.post(f"{stack.url}/predict", json={"prompt": "late"})
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
            assert all(isinstance(done.result(), str) for done in running)
        code = stack.process.wait(timeout=120)  # a second signal would end it at once
    finally:
        stack.stop()
    assert code == 0
