"""LoRA adapters: which there are, and which of them a prompt asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .errors import InvalidArgument, StartupError

_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """One adapter. ``number`` is its id in vLLM, from 1 on; ``rank`` that of its matrices."""

    name: str
    number: int
    folder: str
    rank: int


class Adapters:
    """The adapters of ``LORA_MODULES`` by name."""

    def __init__(self, adapters: Iterable[Adapter] = ()) -> None:
        self._by_name: Mapping[str, Adapter] = MappingProxyType({adapter.name: adapter for adapter in adapters})

    @staticmethod
    def load(modules: Iterable[tuple[str, str]]) -> Adapters:
        """Look into the folders. Raises :class:`StartupError` naming the adapter whose folder is not one."""
        return Adapters(_read(name, number, folder) for number, (name, folder) in enumerate(modules, start=1))

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def max_rank(self) -> int:
        """The largest rank; 0 where there is no adapter."""
        return max((adapter.rank for adapter in self._by_name.values()), default=0)

    def find(self, name: str | None) -> Adapter | None:
        """The adapter of that name; ``None`` for the model itself. Raises :class:`InvalidArgument`."""
        if name is None:
            return None
        found = self._by_name.get(name)
        if found is None:
            known = f"known are {', '.join(self._by_name)}" if self._by_name else "none is configured (LORA_MODULES)"
            raise InvalidArgument(f"'lora_name' has value {name[:80]!r}: no such adapter, {known}")
        return found


def _read(name: str, number: int, folder: str) -> Adapter:
    where = f"LORA_MODULES: adapter '{name}'"
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise StartupError(f"{where}: there is no folder {folder}")
    try:
        config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    except OSError as exc:
        raise StartupError(f"{where}: {path}/adapter_config.json cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise StartupError(f"{where}: {path}/adapter_config.json is not valid JSON: {exc}") from exc
    rank = config.get("r") if isinstance(config, dict) else None
    if type(rank) is not int or rank < 1:
        raise StartupError(f"{where}: {path}/adapter_config.json has no rank 'r', a whole number from 1 on")
    if not (path / _WEIGHTS).is_file():
        raise StartupError(f"{where}: {path} has no {_WEIGHTS}")
    return Adapter(name, number, str(path.absolute()), rank)
