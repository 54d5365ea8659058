"""The compose files by the specification, each overlay laid over the main file as Compose does it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from runtime.launcher import StopTimes
from runtime.settings import RuntimeSettings
from tests.deploy.conftest import DEPLOY

RESET = object()
OVERLAYS = [(), ("compose.cpu.yaml",), ("compose.metax.yaml",)]


class Loader(yaml.SafeLoader):
    """YAML with Compose's tag that takes a setting of an earlier file back."""


Loader.add_constructor("!reset", lambda _loader, _node: RESET)


def interpolated(text: str) -> str:
    """The text with every variable at its default, as in an empty environment."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(interpolated((DEPLOY / name).read_text()), Loader)
    return loaded


def merged(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Mappings key by key, sequences joined, the rest replaced; what is reset goes."""
    result = dict(base)
    for key, value in overlay.items():
        before = result.get(key)
        if value is RESET:
            result.pop(key, None)
        elif isinstance(before, dict) and isinstance(value, dict):
            result[key] = merged(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            result[key] = before + value
        else:
            result[key] = value
    return result


def composed(*overlays: str) -> dict[str, Any]:
    result = read("compose.yaml")
    for name in overlays:
        result = merged(result, read(name))
    return result


@pytest.mark.parametrize("overlays", OVERLAYS, ids=lambda names: names[0] if names else "compose.yaml")
def test_the_files_are_compose_files(overlays: tuple[str, ...]) -> None:
    from compose_spec import PyCompose

    PyCompose.from_yaml(yaml.safe_dump(composed(*overlays))).validate()


def test_a_mistake_is_found() -> None:
    from compose_spec import PyCompose

    broken = composed()
    broken["services"]["llm"]["stop_grace"] = "1s"
    with pytest.raises(ValueError, match="stop_grace"):
        PyCompose.from_yaml(yaml.safe_dump(broken))


def test_a_gpu_is_reserved_but_where_there_is_none() -> None:
    (device,) = composed()["services"]["llm"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "deploy" not in composed("compose.cpu.yaml")["services"]["llm"]


def test_every_mounted_file_exists() -> None:
    for service in composed()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_compose_waits_longer_than_the_launcher_stops() -> None:
    launcher_s = StopTimes.of(RuntimeSettings.from_env({})).all_s
    assert int(composed()["services"]["llm"]["stop_grace_period"].removesuffix("s")) > launcher_s


def test_the_health_check_is_the_images() -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    assert ", ".join(f'"{word}"' for word in composed()["services"]["llm"]["healthcheck"]["test"][1:]) in dockerfile
