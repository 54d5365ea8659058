"""The size of a model's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_model.engines.weights import planned_bytes, weight_bytes
from llm_model.settings import ModelSettings

QWEN_HALF_B = {
    "hidden_size": 896,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def test_it_is_that_of_the_safetensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_HALF_B))
    for name, size in (("a.safetensors", 5), ("b.safetensors", 7), ("c.bin", 100)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert weight_bytes(str(tmp_path)) == 12


def test_the_same_weights_in_another_form_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "consolidated.safetensors").write_bytes(b"x" * 9)
    assert weight_bytes(str(tmp_path)) == 9
    (tmp_path / "model.safetensors").write_bytes(b"x" * 9)
    assert weight_bytes(str(tmp_path)) == 9


def test_an_engine_takes_more_with_a_draft_model_and_with_wider_values(tmp_path: Path) -> None:
    model, draft = tmp_path / "model", tmp_path / "draft"
    for folder, size in ((model, 100), (draft, 7)):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"x" * size)
    with_draft = {"ENABLE_SPECULATIVE_DECODING": "1", "SPEC_METHOD": "draft_model", "SPEC_DRAFT_MODEL_DIR": str(draft)}
    for environ, size in (({}, 100), ({"DTYPE": "float32"}, 200), (with_draft, 107), ({"DTYPE": "bfloat16"}, 100)):
        assert planned_bytes(ModelSettings.from_env({"MODEL_DIR": str(model), **environ})) == size


def test_without_weights_the_configuration_tells(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_HALF_B))
    assert weight_bytes(str(tmp_path)) == pytest.approx(2 * 494e6, rel=0.01)


@pytest.mark.parametrize("config", [None, "{", "[]", "{}", json.dumps({**QWEN_HALF_B, "hidden_size": "wide"})])
def test_what_tells_nothing_is_zero(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert weight_bytes(str(tmp_path)) == 0
