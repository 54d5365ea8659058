"""Large batches leave the event loop in slices."""

from __future__ import annotations

import asyncio

from gateway.policy.messages import SystemPrompt
from gateway.policy.sampling import SamplingOptions
from gateway.prediction import Predictor, Questions
from gateway.settings import GatewaySettings
from gateway.triton.upstreams import Upstreams
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
    plans, conversations = await predictor._prepare(questions, range(10_000))
    other.cancel()
    assert len(plans) == len(conversations.messages) == len(conversations.sampling_parameters) == 10_000
    assert turns >= 10_000 // 512
