"""Is there an accelerator? Told by its device file, so that no driver library has to be loaded.

Under whichever number: a container may have another GPU than the first.
"""

from __future__ import annotations

from pathlib import Path

DEV = Path("/dev")
_NVIDIA = "nvidia[0-9]*"
_METAX = "mxc*"  # mxcd, or mxc and a number


def gpu_present(dev: Path = DEV) -> bool:
    """Whether this machine shows a GPU that vLLM can use."""
    return any(any(dev.glob(name)) for name in (_NVIDIA, _METAX))


def nvidia_gpu_present(dev: Path = DEV) -> bool:
    """Whether it shows one of NVIDIA's."""
    return any(dev.glob(_NVIDIA))
