"""How large a model's weights are, told from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..settings import ModelSettings

_BYTES_A_PARAMETER = 2  # bfloat16, as most models are computed


def planned_bytes(settings: ModelSettings) -> int:
    """What an engine's weights will take, a draft model's included; 0 if that cannot be told."""
    model = weight_bytes(settings.model_dir)
    if settings.dtype == "float32":
        model *= 2  # of files with 16 bits a value, as most are
    speculation = settings.speculation
    draft = weight_bytes(speculation.draft_dir) if speculation.enabled and speculation.draft_dir else 0
    return model and model + draft


def weight_bytes(model_dir: str) -> int:
    """The safetensors' size; without any (dummy weights), what the configuration comes to; 0 if that does not tell."""
    files = list(Path(model_dir).glob("*.safetensors"))
    # The same weights once more, beside others in Hugging Face's form.
    others = [file for file in files if file.name != "consolidated.safetensors"]
    on_disk = sum(file.stat().st_size for file in others or files)
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
