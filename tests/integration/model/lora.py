"""LoRA adapters in PEFT's format, made without PEFT, for a model of Qwen2's architecture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANK = 4


def write_adapter(folder: Path, model: Path, scale: float) -> str:
    """Write an adapter of the query projections with random weights; ``scale`` 0 changes nothing. Returns its path."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    width = config["hidden_size"]
    random = np.random.default_rng(1)
    weights: dict[str, np.ndarray] = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 0.1, (RANK, width)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = (random.normal(0, 0.1, (width, RANK)) * scale).astype(np.float32)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    described = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(described), encoding="utf-8")
    return str(folder)
