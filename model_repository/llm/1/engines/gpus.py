"""Which GPUs this process may use, found without loading a driver library into it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Literal

from ..logs import logger

Maker = Literal["nvidia", "metax"]

_FIELDS = "index,uuid,memory.total"
_MIG_MODE = "mig.mode.current"
_QUERY_S = 20.0


@dataclass(frozen=True)
class Gpu:
    """``name`` is how ``CUDA_VISIBLE_DEVICES`` calls it; ``memory_bytes`` is ``None`` where nothing tells it.

    Nothing does where the card is divided (MIG): nvidia-smi tells the whole card's, CUDA gives a slice of it.
    """

    name: str
    memory_bytes: int | None = None
    maker: Maker = "nvidia"


def visible_gpus(
    environ: Mapping[str, str],
    dev: Path = Path("/dev"),
    ask: Callable[[], str | None] | None = None,
    *,
    uncounted: int = 1,
) -> list[Gpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order; empty on a machine without any.

    ``uncounted`` is how many there are taken to be where only the driver knows: those that one engine needs.
    """
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if any(dev.glob("nvidia[0-9]*")):
        found = _parse((ask or _ask_nvidia_smi)() or "") or _assumed(wanted, uncounted, "nvidia")
    elif metax_present(dev):
        found = _assumed(wanted, uncounted, "metax")
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
        with contextlib.suppress(subprocess.CalledProcessError):  # a driver from before MIG refuses the whole question
            return _query(f"{_FIELDS},{_MIG_MODE}")
        return _query(_FIELDS)
    except (OSError, subprocess.SubprocessError) as exc:
        logger.warning("the GPUs cannot be counted: %s", str(exc).splitlines()[0])
        return None


def _query(fields: str) -> str:
    command = ("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    return subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_S, check=True).stdout


def _parse(answer: str) -> dict[str, Gpu]:
    """Each GPU under its number and under its UUID. Lines that are no rows, such as warnings, are passed over."""
    found = {}
    for line in answer.splitlines():
        number, uuid, memory, mig, *_ = [*(field.strip() for field in line.split(",")), "", "", ""]
        if number.isdigit() and uuid:
            is_told = memory.isdigit() and mig != "Enabled"
            found[number] = found[uuid] = Gpu(number, int(memory) << 20 if is_told else None)
    return found


def _assumed(wanted: str | None, uncounted: int, maker: Maker) -> dict[str, Gpu]:
    """What there is taken to be where nothing counts it: what the operator names, else so many."""
    named = list(takewhile(lambda name: not name.startswith("-"), _names(wanted)))  # -1, as in CUDA: none from here on
    return {name: Gpu(name, maker=maker) for name in named or map(str, range(max(1, uncounted)))}


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
