"""Single questions beside a large batch wait neither for rows that run nor for rows that wait."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.stack import Stack
from tests.e2e.triton_client import model_info

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

BATCH, BATCH_TOKENS = 1024, 48
SINGLES = 4
A_FEW_STEPS = 12


class Ruler:
    """A stream that runs all the while and gets one token from every step of the engine: its tokens count steps."""

    def __init__(self, stack: Stack) -> None:
        self.steps = 0
        self._ends = threading.Event()
        self._stack = stack

    def run(self) -> None:
        """Generate until told to end."""
        while not self._ends.is_set():
            body = {"prompt": "x", "max_tokens": 1900, "ignore_eos": True, "stream": True}
            with httpx.stream("POST", f"{self._stack.url}/v1/completions", json=body, timeout=300) as reply:
                for line in reply.iter_lines():
                    self.steps += line.startswith("data: {")
                    if self._ends.is_set():
                        return

    def end(self) -> None:
        self._ends.set()


def first_token(stack: Stack, ruler: Ruler, number: int) -> tuple[int, float]:
    """Steps and seconds from sending a chat to its first token."""
    body = {"messages": [{"role": "user", "content": f"{number}?"}], "max_tokens": 2, "stream": True}
    steps, started = ruler.steps, time.monotonic()
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", json=body, timeout=300) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return ruler.steps - steps, time.monotonic() - started
    raise AssertionError("no token came")


def test_a_single_question_waits_for_no_row_of_a_batch(course_qa: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    def running() -> int:
        return sum(engine["running"] for engine in model_info(course_qa.grpc_address)["engines"])

    ruler = Ruler(course_qa)
    with ThreadPoolExecutor(2) as others:
        ruling = others.submit(ruler.run)
        course_qa.wait_for(lambda: ruler.steps > 0, 60, "measuring")
        options = {"max_new_tokens": BATCH_TOKENS, "ignore_eos": True, "system_prompt": "s"}
        batch = others.submit(course_qa.predict, [f"{n}?" for n in range(BATCH)], **options)
        course_qa.wait_for(lambda: running() > 100, 60, "working on the batch")
        waits = []
        for number in range(SINGLES):
            waits.append(first_token(course_qa, ruler, number))
            assert not batch.done(), "the batch was over too soon to measure anything"
        assert len(batch.result()) == BATCH
        ruler.end()
        ruling.result()
    with capsys.disabled():
        print("\nfirst token of single questions beside the batch, steps and seconds:", waits)
    # Two on a quiet machine: the step that runs when it comes, and its own. A wave of the batch takes 48.
    assert max(steps for steps, _ in waits) <= A_FEW_STEPS
