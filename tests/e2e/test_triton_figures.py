"""The engines' figures on Triton's metrics port count exactly what was done."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

import pytest

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, infer, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

CHAT = json.dumps([{"role": "user", "content": "什么是线程束？"}], ensure_ascii=False)
SERIES = re.compile(r"^(vllm:\w+)\{(.*)\} (\S+)$", re.MULTILINE)
BATCH, TOKENS = 5, 7


def scrape(stack: Stack) -> dict[str, float]:
    """Sums over all engines by name, with the finish reason or the bucket behind it where a series has one."""
    text = stack.triton_metrics()
    sums: dict[str, float] = {}
    for name, labels, value in SERIES.findall(text):
        assert 'model="llm"' in labels
        kind = re.search(r'(?:finished_reason|le)="([^"]+)"', labels)
        key = f"{name} {kind[1]}" if kind else name
        sums[key] = sums.get(key, 0.0) + float(value)
    return sums


def known_work(stack: Stack) -> int:
    """A batch, a stream and a request that a stop token ends, each with known numbers; returns the prompt tokens."""
    sampling = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    flags = [flag("return_num_input_tokens", True), flag("return_token_ids", True)]
    batch = infer(stack.grpc_address, [strings("messages", [CHAT] * BATCH), *flags], parameters={**sampling})
    assert batch.error is None, batch.message
    (response,) = batch.responses
    stream = infer(stack.grpc_address, [strings("messages", [CHAT]), flag("stream", True)], parameters={**sampling})
    assert stream.error is None, stream.message
    first = json.loads(response["token_ids"][0])[0]
    stopping = {"sampling_parameters": json.dumps({**sampling, "stop_token_ids": [first]})}
    stopped = infer(
        stack.grpc_address, [strings("messages", [CHAT]), strings("sampling_parameters", list(stopping.values()))]
    )
    assert stopped.error is None, stopped.message
    prompt_tokens: int = response["num_input_tokens"][0] * (BATCH + 2)
    return prompt_tokens


def settled(stack: Stack) -> dict[str, float]:
    """The figures once all earlier work is in them: they are published once a second, and a probe runs every three."""
    seen: list[tuple[float, dict[str, float]]] = []

    def steady() -> bool:
        found = scrape(stack)
        if not seen or seen[-1][1] != found:
            seen.append((time.monotonic(), found))
        return time.monotonic() - seen[-1][0] > 1.6

    stack.wait_for(steady, 60, "at rest")
    return seen[-1][1]


def differences(before: Mapping[str, float], after: Mapping[str, float], prompt_tokens: int) -> dict[str, str]:
    """What has not grown by what was done, between two scrapes.

    One-token probes of the service run besides: each is a request more, with one token, ended by its length.
    """

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    long, stopped = BATCH + 1, 1
    requests, generated = long + stopped, long * TOKENS + 1
    probes = grown("vllm:e2e_request_latency_seconds_count") - requests
    of_probes = grown("vllm:prompt_tokens_total") - prompt_tokens
    expected = {
        "vllm:request_success_total stop": stopped,
        "vllm:request_success_total length": long + probes,
        "vllm:generation_tokens_total": generated + probes,
        "vllm:inter_token_latency_seconds_count": generated - requests,
        "vllm:time_to_first_token_seconds_count": requests + probes,
        "vllm:request_queue_time_seconds_count": requests + probes,
        "vllm:request_generation_tokens_sum": generated + probes,
        "vllm:request_generation_tokens_count": requests + probes,
        "vllm:request_generation_tokens_bucket 1": stopped + probes,
        "vllm:request_generation_tokens_bucket 10": requests + probes,
        "vllm:request_prompt_tokens_count": requests + probes,
        "vllm:request_prompt_tokens_sum": prompt_tokens + of_probes,
        "vllm:num_preemptions_total": 0,
    }
    wrong = {name: f"{grown(name):g}, not {value:g}" for name, value in expected.items() if grown(name) != value}
    if probes < 0 or (of_probes < probes if probes else of_probes):
        wrong["vllm:prompt_tokens_total"] = f"{prompt_tokens:g} and {of_probes:g} of {probes:g} probes"
    return wrong


def test_known_work_is_counted_exactly(stack: Stack) -> None:
    before = settled(stack)
    prompt_tokens = known_work(stack)
    deadline = time.monotonic() + 30
    while wrong := differences(before, scrape(stack), prompt_tokens):
        assert time.monotonic() < deadline, wrong
        time.sleep(0.2)


def test_idle_engines_show_no_work(stack: Stack) -> None:
    def idle() -> bool:
        found = scrape(stack)
        return found["vllm:num_requests_running"] == found["vllm:num_requests_waiting"] == 0

    stack.wait_for(idle, 30, "idle")
    assert 0 <= scrape(stack)["vllm:kv_cache_usage_perc"] < 0.05
