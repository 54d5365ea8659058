"""Is there an accelerator? Told by its device file, so that no driver library has to be loaded."""

from __future__ import annotations

from pathlib import Path

GPU_DEVICES = ("nvidia0", "mxcd")  # NVIDIA, MetaX


def gpu_present(dev: Path = Path("/dev")) -> bool:
    """Whether this machine shows a GPU that vLLM can use."""
    return any((dev / name).exists() for name in GPU_DEVICES)
