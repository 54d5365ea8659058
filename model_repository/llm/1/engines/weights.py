"""How large a model's weights are, told from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BYTES_A_PARAMETER = 2  # bfloat16, as most models are computed


def weight_bytes(model_dir: str) -> int:
    """The safetensors' size; without any (dummy weights), what the configuration comes to; 0 if that does not tell."""
    on_disk = sum(file.stat().st_size for file in Path(model_dir).glob("*.safetensors"))
    if on_disk:
        return on_disk
    try:
        config = json.loads(Path(model_dir, "config.json").read_text(encoding="utf-8"))
        return _BYTES_A_PARAMETER * _parameters(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _parameters(config: Mapping[str, Any]) -> int:
    """Those of a dense decoder with gated feed-forward blocks, the usual shape; norms and biases are left out."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    key_value = int(config.get("num_key_value_heads") or heads) * head
    attention = hidden * (2 * heads * head + 2 * key_value)
    layer = attention + 3 * hidden * int(config["intermediate_size"])
    embeddings = (1 if config.get("tie_word_embeddings") else 2) * int(config["vocab_size"]) * hidden
    return embeddings + int(config["num_hidden_layers"]) * layer
