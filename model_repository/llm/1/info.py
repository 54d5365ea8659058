"""What ``/info`` and the watchdog are told: model, backend, engines, versions, effective settings."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from functools import cache
from importlib import metadata
from typing import Any

from .engines.selection import Backend
from .settings import ModelSettings

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
# An allow-list: a setting added later is not shown until somebody decides that it may be.
_SHOWN_SETTINGS = (
    "use_vllm",
    "force_vllm",
    "dtype",
    "transformers_dtype",
    "gpu_memory_utilization",
    "max_model_len",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "quantization",
    "load_format",
    "kv_cache_dtype",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enforce_eager",
    "engines_per_gpu",
    "engine_start_s",
    "engine_hang_s",
    "tensor_parallel_size",
    "trust_remote_code",
)


def model_info(settings: ModelSettings, backend: Backend) -> dict[str, Any]:
    """Return a JSON-ready snapshot; never blocks, but for reading the packages' versions the first time."""
    return {
        "model": settings.served_name,
        "backend": backend.name,
        "backend_version": backend.version,
        "backend_reason": backend.reason,
        "dtype": backend.pool.dtype,
        "max_model_len": backend.max_model_len,
        "opens_think": backend.tokenization.opens_think,
        "notes": list(dict.fromkeys(note for status in backend.pool.status() for note in status.notes)),
        "adapters": [name for name, _ in settings.lora_modules],
        "engines": [dataclasses.asdict(status) for status in backend.pool.status()],
        "versions": {"python": platform.python_version(), backend.name: backend.version} | _package_versions(),
        "settings": {name: getattr(settings, name) for name in _SHOWN_SETTINGS},
    }


@cache
def _package_versions() -> dict[str, str]:
    """Read once: they are on the disk. A package may have come without the metadata that tell its version."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
