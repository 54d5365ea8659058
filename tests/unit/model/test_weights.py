"""The size of a model's weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_model.engines.weights import weight_bytes

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


def test_without_weights_the_configuration_tells(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_HALF_B))
    assert weight_bytes(str(tmp_path)) == pytest.approx(2 * 494e6, rel=0.01)


@pytest.mark.parametrize("config", [None, "{", "[]", "{}", json.dumps({**QWEN_HALF_B, "hidden_size": "wide"})])
def test_what_tells_nothing_is_zero(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert weight_bytes(str(tmp_path)) == 0
