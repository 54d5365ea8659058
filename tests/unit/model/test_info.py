"""The model's status: what it tells, and that it tells nothing else."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_model.engines.base import EngineStatus
from llm_model.engines.pool import EnginePool
from llm_model.engines.selection import Backend
from llm_model.info import _SHOWN_SETTINGS, _package_versions, model_info
from llm_model.settings import ModelSettings
from llm_model.tokenization import Tokenization
from tests.unit.model.fake_engines import ScriptedEngine

SECRET = "hunter2-secret"


def info(tokenization: Tokenization, **environ: str) -> dict[str, Any]:
    pool = EnginePool([ScriptedEngine("a"), ScriptedEngine("b")])
    backend = Backend("vllm", "9.9", "because", pool, tokenization, 77)
    return json.loads(msgspec.json.encode(model_info(ModelSettings.from_env(environ), backend)))


def test_the_fields(tokenization: Tokenization) -> None:
    found = info(tokenization, MODEL_ID="a/b", MAX_MODEL_LEN="77")
    about_backend = {"backend", "backend_version", "backend_reason", "dtype", "max_model_len", "opens_think"}
    assert set(found) == {"model", "engines", "versions", "settings", "adapters", "notes"} | about_backend
    assert (found["model"], found["backend"], found["backend_version"]) == ("b", "vllm", "9.9")
    assert (found["backend_reason"], found["dtype"], found["max_model_len"]) == ("because", "float32", 77)
    assert [engine["name"] for engine in found["engines"]] == ["a", "b"]
    fields = {field.name for field in dataclasses.fields(EngineStatus)}
    assert all(set(engine) == fields for engine in found["engines"])
    assert {"python", "transformers", "tokenizers", "numpy"} <= set(found["versions"])
    assert (found["settings"]["max_model_len"], found["settings"]["use_vllm"]) == (77, "auto")


def test_versions_are_read_once_and_a_package_without_one_is_left_out(
    tokenization: Tokenization, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def version(name: str) -> str:
        asked.append(name)
        if name == "numpy":
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    _package_versions.cache_clear()
    try:
        told = [info(tokenization)["versions"] for _ in range(3)]
    finally:
        _package_versions.cache_clear()
    assert all(versions["tokenizers"] == "1.2" and "numpy" not in versions for versions in told)
    assert sorted(asked) == sorted(set(asked))


def test_the_allow_list_names_settings() -> None:
    assert set(_SHOWN_SETTINGS) <= {field.name for field in dataclasses.fields(ModelSettings)}


SECRETS = (
    "MODELSCOPE_API_TOKEN",
    "API_KEY",
    "ADMIN_TOKEN",
    "HF_TOKEN",
    "SYSTEM_PROMPT",
    "MODEL_DIR",
    "WARMUP_DATA_PATH",
)


def test_nothing_secret_is_told(tokenization: Tokenization, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ = dict.fromkeys(SECRETS, SECRET)
    environ |= {"MODEL_ID": "a/b", "VLLM_ENGINE_ARGS": json.dumps({"hf_token": SECRET})}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert SECRET not in json.dumps(info(tokenization, **environ))
