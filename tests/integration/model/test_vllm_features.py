"""What real vLLM does on request: LoRA adapters, structured outputs, a shorter context, speculative decoding.

Two engines, one after the other; each is asked everything while it runs, and the tests look at what it said.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_model.adapters import Adapters
from llm_model.engines.base import EngineStatus, GenerationRequest
from llm_model.engines.vllm_options import engine_options, installed_release, prepare_environment
from llm_model.parameters import SamplingParameters, StructuredOutputs
from llm_model.settings import ModelSettings
from llm_model.tokenization import Tokenization
from tests.integration.model.lora import write_adapter

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("default"),  # vLLM's imports and its children are not ours to keep free of warnings
]

QUESTIONS = ("什么是线程束？", "共享内存有什么用？", "写一个向量加法的 kernel。")
TOO_LONG = 1_000_000  # tokens; one GiB holds about half of it
STRUCTURES = {
    # No object: a small model may fill the white space that one allows up to the last token.
    "json": StructuredOutputs(json='{"type": "string", "enum": ["grid", "thread"]}'),
    "regex": StructuredOutputs(regex="[0-9]{3}-[a-z]{2}"),
    "choice": StructuredOutputs(choice=("warp", "block")),
}


@dataclass
class Heard:
    """What one engine said: texts by adapter's name (``None``: the model itself), by structure, and its figures."""

    status: EngineStatus
    texts: dict[str | None, list[str]] = field(default_factory=dict)
    structured: dict[str, str] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


async def start(settings: ModelSettings, max_model_len: int) -> Any:
    prepare_environment(settings)  # before vLLM is imported
    from llm_model.engines.vllm_engine import VllmEngine, device

    found = device()
    assert found is not None
    engine = VllmEngine("vllm-0", engine_options(settings, found, max_model_len))
    await engine.start()
    return engine


async def answers(engine: Any, model: Path, adapter: Any = None) -> list[str]:
    """Greedy answers to all questions at once."""
    tokenization = Tokenization.load(str(model), trust_remote_code=False)
    chats = [tokenization.render_chat([{"role": "user", "content": question}]) for question in QUESTIONS]
    params = SamplingParameters(max_tokens=48, temperature=0.0, repetition_penalty=1.05, frequency_penalty=0.1)
    prompts = tokenization.encode(chats, add_special_tokens=False)
    asked = [
        GenerationRequest(f"{adapter}-{place}", ids, params, detokenize=True, adapter=adapter)
        for place, ids in enumerate(prompts)
    ]
    samples = await asyncio.gather(*map(engine.generate, asked))
    return [sample[0].text for sample in samples]


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory, course_qa_model: Path) -> Path:
    """The course's model, which claims a context that no cache here holds."""
    folder = tmp_path_factory.mktemp("long-model")
    for file in course_qa_model.iterdir():
        shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = TOO_LONG
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plain(environment: None, long_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Heard]:
    """An engine with two adapters and a context that its cache does not hold."""
    folder = tmp_path_factory.mktemp("adapters")
    modules = {
        "nothing": write_adapter(folder / "nothing", long_model, 0.0),
        "loud": write_adapter(folder / "loud", long_model, 20.0),
    }
    settings = ModelSettings.from_env(
        {
            "MODEL_DIR": str(long_model),
            "DTYPE": "float32",  # with bf16, the choice of newer CPUs, the cache would hold twice as much
            "LORA_MODULES": json.dumps(modules),
            "VLLM_MAX_NUM_SEQS": "8",
            "VLLM_MAX_NUM_BATCHED_TOKENS": "4096",
        }
    )
    engine = await start(settings, TOO_LONG)
    try:
        heard = Heard(engine.status())
        adapters = Adapters.load(settings.lora_modules)
        for name in (None, *modules):
            heard.texts[name] = await answers(engine, long_model, adapters.find(name))
        for name, structure in STRUCTURES.items():
            params = SamplingParameters(max_tokens=64, temperature=0.0, structured_outputs=structure)
            (sample,) = await engine.generate(GenerationRequest(name, [5, 6, 7], params, detokenize=True))
            heard.structured[name] = sample.text
        heard.counters = {name: value for (name, _), value in engine.stats.counters.items()}
        yield heard
    finally:
        await engine.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def speculating(plain: Heard, course_qa_model: Path) -> AsyncIterator[Heard]:
    """An engine whose draft model is the model itself, so that nearly every guess is right."""
    if installed_release() < (0, 15):  # of the pinned vLLM it would be a failure
        pytest.skip("this vLLM has no draft models")
    settings = ModelSettings.from_env(
        {
            "MODEL_DIR": str(course_qa_model),
            "DTYPE": "float32",
            "ENABLE_SPECULATIVE_DECODING": "1",
            "SPEC_METHOD": "draft_model",
            "SPEC_DRAFT_MODEL_DIR": str(course_qa_model),
            "SPEC_NUM_SPECULATIVE_TOKENS": "3",
            "VLLM_MAX_NUM_SEQS": "8",
        }
    )
    engine = await start(settings, 1024)
    try:
        heard = Heard(engine.status())
        heard.texts[None] = await answers(engine, course_qa_model)
        heard.counters = {name: value for (name, _), value in engine.stats.counters.items()}
        yield heard
    finally:
        await engine.stop()


async def test_a_context_that_the_cache_does_not_hold_is_shortened(plain: Heard) -> None:
    length = plain.status.max_model_len
    assert length is not None
    assert 1024 < length < TOO_LONG
    assert plain.status.notes == (
        f"the KV cache does not hold max_model_len {TOO_LONG}; {length} is used, the length that vLLM names",
    )


async def test_an_adapter_changes_the_answers_and_an_empty_one_does_not(plain: Heard) -> None:
    assert all(plain.texts[None])
    assert plain.texts["nothing"] == plain.texts[None]
    assert all(loud != own for loud, own in zip(plain.texts["loud"], plain.texts[None], strict=True))


async def test_structured_outputs_have_their_structure(plain: Heard) -> None:
    assert json.loads(plain.structured["json"]) in ("grid", "thread")
    assert re.fullmatch("[0-9]{3}-[a-z]{2}", plain.structured["regex"])
    assert plain.structured["choice"] in ("warp", "block")


async def test_speculation_changes_no_greedy_answer(plain: Heard, speculating: Heard) -> None:
    assert speculating.texts[None] == plain.texts[None]


async def test_accepted_guesses_are_counted(plain: Heard, speculating: Heard) -> None:
    drafted = speculating.counters["vllm:spec_decode_num_draft_tokens_total"]
    accepted = speculating.counters["vllm:spec_decode_num_accepted_tokens_total"]
    assert speculating.counters["vllm:spec_decode_num_drafts_total"] > 0
    assert 0.5 < accepted / drafted <= 1
    assert "vllm:spec_decode_num_draft_tokens_total" not in plain.counters
