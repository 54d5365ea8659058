"""A model folder's files as bytes: well-formed and as small as a test wants, with no model in them."""

from __future__ import annotations

import json
import random
from pathlib import Path


def safetensors(data_size: int, seed: int = 0) -> bytes:
    """Return a safetensors file of one byte tensor of ``data_size`` values."""
    entry = {"dtype": "U8", "shape": [data_size], "data_offsets": [0, data_size]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(data_size)


def model_files(data_size: int = 1000, seed: int = 0) -> dict[str, bytes]:
    """Return the files of a sound model folder whose weights have ``data_size`` bytes."""
    return {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors": safetensors(data_size, seed),
    }


def sharded_model_files(shards: int = 2) -> dict[str, bytes]:
    """Return the files of a sound folder whose weights lie in several files with an index."""
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    index = {"metadata": {}, "weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    files = {name: content for name, content in model_files().items() if not name.endswith(".safetensors")}
    files.update((name, safetensors(100, seed)) for seed, name in enumerate(names))
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write the files below ``folder``, which is made, and return it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
