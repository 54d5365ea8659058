"""Models of a given shape with random weights: speed does not depend on what they say.

Real safetensors files, so that every peer loads them in the ordinary way. The tokenizer is another model's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

# Qwen's sizes: hidden, intermediate, layers, heads, key-value heads, head dimension.
_SHAPES = {
    "0.5B": (896, 4864, 24, 14, 2, 64),
    "1.7B": (2048, 6144, 28, 16, 8, 128),
    "4B": (2560, 9728, 36, 32, 8, 128),
}
_VOCABULARY = 151_936
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def config(shape: str, base: dict[str, Any]) -> dict[str, Any]:
    """A Qwen3 configuration of this shape, with the special tokens of ``base``."""
    hidden, intermediate, layers, heads, kv_heads, head_dim = _SHAPES[shape]
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **{name: base[name] for name in ("eos_token_id", "pad_token_id", "bos_token_id") if base.get(name) is not None},
    }


def make(shape: str, folder: Path, tokenizer_from: Path) -> Path:
    """The model's folder; made if it is not there yet."""
    done = folder / "model.safetensors"
    if done.is_file():
        return folder
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    base = json.loads((tokenizer_from / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config(shape, base), indent=1))
    for name in _TOKENIZER_FILES:
        if (tokenizer_from / name).is_file():
            shutil.copyfile(tokenizer_from / name, folder / name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"  # four billion random numbers take a CPU a minute
    weights = {
        name: torch.ones(tensor.shape, dtype=torch.bfloat16)
        if tensor.dim() == 1
        else torch.empty(tensor.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02).cpu()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # the embedding, once more
    }
    unfinished = done.with_suffix(f".{os.getpid()}")
    save_file(weights, unfinished, metadata={"format": "pt"})
    unfinished.rename(done)  # whoever sees the file sees all of it
    return folder


if __name__ == "__main__":  # python -m benchmarks.shapes SHAPE FOLDER TOKENIZER_FROM
    make(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
