"""What the model's tests share: Triton's module (a fake), a small real tokenizer, and a model folder with it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if "triton_python_backend_utils" not in sys.modules:  # the real one exists in Triton's stub only
    fake = importlib.import_module("tests.fakes.triton_python_backend_utils")
    sys.modules["triton_python_backend_utils"] = fake

from llm_model.engines.pool import EnginePool
from llm_model.generation import Generator
from tests.unit.model.fake_engines import ScriptedEngine
from tests.unit.model.generating import MAX_MODEL_LEN, CountingTokenization
from tests.unit.model.tiny_model import build_tokenizer, write_model_folder

if TYPE_CHECKING:
    from llm_model.service import ModelService
    from llm_model.tokenization import Tokenization


@pytest.fixture(autouse=True, scope="module")
def restored_environment() -> Iterator[None]:
    """Forget what a starting model sets for the libraries it uses: other tests and their children would inherit it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE tokenizer of transformers, with ChatML's special tokens and template."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def tokenization(tokenizer: Any) -> Tokenization:
    from llm_model.tokenization import Tokenization

    return Tokenization(tokenizer)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and the tokenizer, without weights: enough for the echo engine."""
    return write_model_folder(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def start_service(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModelService]]:
    """Starts services with the echo engine, or with the engines given, and stops them all."""
    from llm_model.engines.base import Engine
    from tests.unit.model.running import new_service

    running: list[ModelService] = []

    def start(*engines: Engine) -> ModelService:
        service = new_service(model_folder, list(engines), monkeypatch)
        running.append(service)
        service.start()
        return service

    yield start
    for service in running:
        if service._thread.is_alive():  # a test may have stopped it
            service.stop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def counting(tokenizer: Any) -> CountingTokenization:
    tokenization = CountingTokenization(tokenizer)
    tokenization.decodings = []
    return tokenization


@pytest.fixture
def generator(engine: ScriptedEngine, counting: CountingTokenization) -> Generator:
    """A generator over the scripted engine, for prompts of less than ``MAX_MODEL_LEN`` tokens."""
    return Generator(EnginePool([engine]), counting, MAX_MODEL_LEN)
