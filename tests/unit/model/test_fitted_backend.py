"""What the engines turn out to have, once started: a shorter context, notes for the operator, no adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_model.engines.base import EngineStatus
from llm_model.engines.pool import EnginePool
from llm_model.engines.selection import Backend, select_backend
from llm_model.errors import StartupError
from llm_model.info import model_info
from llm_model.settings import ModelSettings
from tests.unit.model.fake_engines import ScriptedEngine

NOTE = "the KV cache does not hold max_model_len 1024; 512 is used"


class Short(ScriptedEngine):
    """An engine whose context is what its status says."""

    def __init__(self, name: str, length: int | None, *notes: str) -> None:
        super().__init__(name)
        self._told = {"max_model_len": length, "notes": notes}

    def status(self) -> EngineStatus:
        return EngineStatus(self.name, "ready", **self._told)  # type: ignore[arg-type]


def backend(tokenization: Any, *engines: Short) -> Backend:
    return Backend("vllm", "9.9", "", EnginePool(engines), tokenization, 1024).fitted()


def test_the_shortest_context_of_the_engines_counts(tokenization: Any) -> None:
    assert backend(tokenization, Short("a", 1024), Short("b", 512)).max_model_len == 512
    assert backend(tokenization, Short("a", None)).max_model_len == 1024
    assert backend(tokenization, Short("a", 4096)).max_model_len == 1024


def test_info_tells_the_length_and_each_note_once(tokenization: Any) -> None:
    fitted = backend(tokenization, Short("a", 512, NOTE), Short("b", 512, NOTE))
    found = model_info(ModelSettings.from_env({"MODEL_DIR": "/m", "LORA_MODULES": '{"x": "/x"}'}), fitted)
    assert (found["max_model_len"], found["notes"], found["adapters"]) == (512, [NOTE], ["x"])


def test_adapters_need_vllm(model_folder: Path) -> None:
    modules = json.dumps({"x": "/x"})
    environ = {"MODEL_DIR": str(model_folder), "USE_VLLM": "false", "LORA_MODULES": modules}
    with pytest.raises(StartupError) as caught:
        select_backend(ModelSettings.from_env(environ))
    assert str(caught.value) == "LORA_MODULES needs vLLM, and transformers would serve, because USE_VLLM=false"
