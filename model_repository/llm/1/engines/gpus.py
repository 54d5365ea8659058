"""Which GPUs this process may use, found without loading a driver library into it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..logs import logger

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
_QUERY_S = 20.0


@dataclass(frozen=True)
class Gpu:
    """``name`` is how ``CUDA_VISIBLE_DEVICES`` calls it; ``memory_bytes`` is ``None`` where nothing tells it."""

    name: str
    memory_bytes: int | None = None
    maker: Literal["nvidia", "metax"] = "nvidia"


def visible_gpus(
    environ: Mapping[str, str], dev: Path = Path("/dev"), ask: Callable[[], str | None] | None = None
) -> list[Gpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order; empty on a machine without any."""
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if any(dev.glob("nvidia[0-9]*")):
        found = _parse((ask or _ask_nvidia_smi)() or "")
    elif metax_present(dev):
        # How many there are only its driver says: one, unless the operator names them.
        found = {name: Gpu(name, maker="metax") for name in _names(wanted) or ["0"]}
    else:
        return []
    if wanted is None:
        return list(dict.fromkeys(found.values()))
    return _chosen(found, _names(wanted))


def metax_present(dev: Path = Path("/dev")) -> bool:
    """Whether this machine has a MetaX GPU, by its device nodes: ``mxcd``, ``mxc0`` …"""
    return any(dev.glob("mxc*"))


def _ask_nvidia_smi() -> str | None:
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_S, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        logger.warning("the GPUs cannot be counted: %s", str(exc).splitlines()[0])
        return None
    return done.stdout


def _parse(answer: str) -> dict[str, Gpu]:
    """Each GPU under its number and under its UUID."""
    found = {}
    for line in answer.splitlines():
        number, uuid, memory = (field.strip() for field in line.split(","))
        gpu = Gpu(number, int(memory) << 20 if memory.isdigit() else None)
        found[number] = found[uuid] = gpu
    return found or {"0": Gpu("0")}


def _names(wanted: str | None) -> list[str]:
    return [name.strip() for name in (wanted or "").split(",") if name.strip()]


def _chosen(found: Mapping[str, Gpu], names: Sequence[str]) -> list[Gpu]:
    """Those named, up to the first that is not there, as CUDA does; a name that is no number or UUID is believed."""
    chosen = []
    for name in names:
        known = found.get(name) or next((gpu for full, gpu in found.items() if full.startswith(name)), None)
        if known is None and name.lstrip("-").isdigit():
            break
        chosen.append(replace(known, name=name) if known is not None else Gpu(name))
    return chosen
