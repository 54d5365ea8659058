"""The transformers engine over a model of a few lines, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llm_model.engines.base import Engine, GenerationRequest
from llm_model.engines.transformers_engine import TransformersConfig, TransformersEngine
from llm_model.parameters import SamplingParameters
from tests.fakes.decoding_model import (
    FakeModel,
)

CONFIG = TransformersConfig(model_dir="unused", dtype="auto", max_model_len=100)
PROMPTS = [[11], [12, 13, 14, 15, 16, 17], [18, 19], [20, 21, 22], [23, 24, 25, 26, 27, 28, 29, 30, 31]]


@contextlib.asynccontextmanager
async def started(model: FakeModel) -> AsyncGenerator[TransformersEngine, None]:
    engine = TransformersEngine("t", CONFIG, load=lambda config: model)
    await engine.start()
    try:
        yield engine
    finally:
        model.gate.set()
        await engine.stop()


def request(prompt: Sequence[int], detokenize: bool = False, priority: int = 0, **params: Any) -> GenerationRequest:
    parameters = SamplingParameters(**{"temperature": 0.0, "max_tokens": 8, **params})
    return GenerationRequest("r", list(prompt), parameters, detokenize, priority)


async def tokens_of(engine: Engine, wanted: GenerationRequest) -> list[int]:
    return (await engine.generate(wanted))[0].token_ids


def is_idle(engine: TransformersEngine) -> bool:
    status = engine.status()
    return (status.running, status.waiting, status.outstanding_tokens) == (0, 0, 0)
