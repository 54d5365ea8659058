"""How questions are prepared: in slices, and all of one request alike."""

from __future__ import annotations

import asyncio

import pytest

from gateway.policy.messages import SystemPrompt
from gateway.policy.sampling import SamplingOptions
from gateway.prediction import Predictor, Questions
from gateway.settings import GatewaySettings
from gateway.triton.generate import Finish, Outcome
from gateway.triton.upstreams import Upstreams
from gateway.triton.wire import Conversations
from gateway.turns import Turns


async def test_preparing_a_large_batch_lets_others_run_again_and_again() -> None:
    settings = GatewaySettings()
    predictor = Predictor(settings, Upstreams(settings.triton_urls), SystemPrompt("s"), Turns())
    questions = Questions([f"q{number}" for number in range(10_000)], SamplingOptions())
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(other_work())
    plans, conversations = await predictor._prepare(questions, predictor._encoders(questions), range(10_000))
    other.cancel()
    assert len(plans) == len(conversations.messages) == len(conversations.sampling_parameters) == 10_000
    assert turns >= 10_000 // 512


async def test_one_request_has_one_system_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, system_prompt = GatewaySettings(), SystemPrompt("the first")
    upstreams = Upstreams(settings.triton_urls)
    predictor = Predictor(settings, upstreams, system_prompt, Turns())
    shares: list[list[bytes]] = []

    async def require_ready(*_: object) -> None:
        system_prompt.replace("set while it waits")

    async def generate(conversations: Conversations, finish: Finish, deadline: float) -> list[Outcome]:
        shares.append(list(conversations.messages))
        system_prompt.replace("set between two shares")
        return ["an answer"] * len(conversations.messages)

    monkeypatch.setattr(upstreams, "require_ready", require_ready)
    monkeypatch.setattr(predictor._generator, "generate", generate)
    prediction = await predictor.predict(Questions(["q"] * 2_500, SamplingOptions()))
    assert prediction.answers == ["an answer"] * 2_500
    assert len(shares) > 1
    assert all(b'"the first"' in messages for share in shares for messages in share)
