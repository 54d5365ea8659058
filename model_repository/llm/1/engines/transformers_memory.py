"""Whether a model fits into memory, and how much of a batch fits beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import StartupError
from .transformers_queue import BatchLimits

_PREFILL_TOKENS = 16384  # bounds the activations of one forward pass, which grow with padded prompt tokens
_CACHE_SHARE = 0.5  # of the memory left beside the weights; the rest is for activations and for growing the cache
_GIB = 2**30
_UNKNOWN = 2**62
_CGROUPS = (  # version 2, version 1
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_bytes(device: torch.device) -> int:
    """Return the free memory of the device; on a CPU what the machine and the control group both leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = _numbers("/proc/meminfo")
    free = [meminfo["MemAvailable:"] * 1024] if "MemAvailable:" in meminfo else []
    for folder, limit, usage in _CGROUPS:
        limits, used = _numbers(f"{folder}/{limit}"), _numbers(f"{folder}/{usage}")
        if limits and used:
            stat = _numbers(f"{folder}/memory.stat")
            file_cache = stat.get("active_file", 0) + stat.get("inactive_file", 0)  # given back when needed
            free.append(limits[""] - used[""] + file_cache)
    return min(free, default=_UNKNOWN)


def _numbers(path: str) -> dict[str, int]:
    """Read lines of ``name number …``; a file with one bare number has it under ``""``. No file, no numbers."""
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    named = ((words[0], words[1]) if len(words) > 1 else ("", words[0]) for words in lines if words)
    return {name: int(number) for name, number in named if number.isdigit()}


def check_weights_fit(folder: Path, config: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse weights that memory cannot hold, before the kernel ends the process. Raises :class:`StartupError`."""
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    stored_dtype = checkpoint_dtype(config)
    is_converted = stored_dtype is not None and not getattr(config, "quantization_config", None)
    needed = int(stored * dtype.itemsize / stored_dtype.itemsize) if is_converted and stored_dtype else stored
    free = available_bytes(device)
    if needed > free:
        raise StartupError(
            f"too little memory: the weights in {folder} need {needed / _GIB:.1f} GiB as "
            f"{str(dtype).removeprefix('torch.')}, {free / _GIB:.1f} GiB are free on {device}"
        )


def checkpoint_dtype(config: Any) -> torch.dtype | None:
    """Return the type the weights are stored in, as far as the config tells; older versions name it differently."""
    for name in ("dtype", "torch_dtype"):
        value = getattr(config, name, None)
        value = getattr(torch, value, None) if isinstance(value, str) else value
        if isinstance(value, torch.dtype):
            return value
    return None


def batch_limits(config: Any, dtype: torch.dtype, device: torch.device, rows: int, max_model_len: int) -> BatchLimits:
    """Return the limits of a batch from the memory that is free now. Raises :class:`StartupError` if one row is over.

    ``config`` is the model's, already loaded; ``rows`` the wanted maximum.
    """
    per_token = _cache_bytes_per_token(config.get_text_config(), dtype)
    room = int(available_bytes(device) * _CACHE_SHARE) // per_token
    if room < max_model_len:
        raise StartupError(
            f"too little memory: MAX_MODEL_LEN={max_model_len} needs {max_model_len * per_token / _GIB:.1f} GiB of "
            f"key-value cache, {device} has room for {room} tokens"
        )
    return BatchLimits(rows=rows, prefill_tokens=_PREFILL_TOKENS, cache_tokens=room)


def _cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    heads = config.num_attention_heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(config.num_hidden_layers * key_value_heads * head_size * 2 * dtype.itemsize)
