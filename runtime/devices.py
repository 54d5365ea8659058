"""Is there an accelerator? Told by its device file, so that no driver library has to be loaded."""

from __future__ import annotations

from pathlib import Path

DEV = Path("/dev")
GPU_DEVICES = ("nvidia0", "mxc*")  # NVIDIA, MetaX (mxcd, or mxc and a number)


def gpu_present(dev: Path = DEV) -> bool:
    """Whether this machine shows a GPU that vLLM can use."""
    return any(any(dev.glob(name)) for name in GPU_DEVICES)


def nvidia_gpu_present(dev: Path = DEV) -> bool:
    """Whether it shows one of NVIDIA's, under whichever number: a container may have another than the first."""
    return any(dev.glob("nvidia[0-9]*"))
