"""LoRA adapters: what their folders must hold, and how a prompt names one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_model.adapters import Adapter, Adapters
from llm_model.engines.base import GenerationRequest
from llm_model.engines.pool import EnginePool
from llm_model.engines.vllm_options import Device, engine_options
from llm_model.errors import InvalidArgument, StartupError
from llm_model.generation import Generator
from llm_model.parameters import SamplingParameters
from llm_model.rows import InferenceCall
from llm_model.settings import ModelSettings
from tests.unit.model.fake_engines import ScriptedEngine

MakeAdapter = Callable[..., str]


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Makes an adapter's folder and returns its path."""

    def make(name: str, rank: object = 8) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}), encoding="utf-8")
        (folder / "adapter_model.safetensors").write_bytes(b"")
        return str(folder)

    return make


def test_adapters_are_numbered_from_one_and_found_by_name(make_adapter: MakeAdapter) -> None:
    found = Adapters.load((("a", make_adapter("a", 4)), ("b", make_adapter("b", 20))))
    assert (len(found), found.max_rank) == (2, 20)
    adapter = found.find("b")
    assert adapter is not None
    assert (adapter.name, adapter.number, adapter.rank) == ("b", 2, 20)
    assert found.find(None) is None


def test_an_unknown_name_lists_those_that_are_known() -> None:
    adapters = Adapters([Adapter("a", 1, "/a", 8), Adapter("b", 2, "/b", 8)])
    with pytest.raises(InvalidArgument, match="'lora_name' has value 'c': no such adapter, known are a, b"):
        adapters.find("c")
    with pytest.raises(InvalidArgument, match="none is configured"):
        Adapters().find("c")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"LORA_MODULES: adapter 'a': there is no folder {tmp_path}/none"):
        Adapters.load((("a", f"{tmp_path}/none"),))


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"adapter 'a': .*adapter_config\.json cannot be read"):
        Adapters.load((("a", str(tmp_path)),))


def test_a_configuration_that_is_not_json(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("a")
    Path(folder, "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(StartupError, match="is not valid JSON"):
        Adapters.load((("a", folder),))


@pytest.mark.parametrize("rank", [0, -1, "8", None, True, 1.5])
def test_a_rank_that_is_none(make_adapter: MakeAdapter, rank: object) -> None:
    with pytest.raises(StartupError, match="has no rank 'r'"):
        Adapters.load((("a", make_adapter("a", rank)),))


def test_a_folder_without_weights(make_adapter: MakeAdapter) -> None:
    folder = make_adapter("a")
    Path(folder, "adapter_model.safetensors").unlink()
    with pytest.raises(StartupError, match=r"has no adapter_model\.safetensors"):
        Adapters.load((("a", folder),))


@pytest.mark.parametrize("ranks, expected", [([1], 8), ([8], 8), ([8, 9], 16), ([300], 320), ([600], 600)])
def test_vllm_gets_room_for_the_largest_rank(make_adapter: MakeAdapter, ranks: list[int], expected: int) -> None:
    modules = {f"a{place}": make_adapter(f"a{place}", rank) for place, rank in enumerate(ranks)}
    found = options(modules)
    assert found["max_lora_rank"] == expected
    assert (found["enable_lora"], found["max_loras"], found["max_cpu_loras"]) == (True, len(ranks), len(ranks))


def test_at_most_eight_adapters_share_a_step(make_adapter: MakeAdapter) -> None:
    found = options({f"a{place}": make_adapter(f"a{place}") for place in range(9)})
    assert (found["max_loras"], found["max_cpu_loras"]) == (8, 9)


@pytest.mark.parametrize("count", [1, 8, 9])
def test_on_a_cpu_one_place_stays_empty(make_adapter: MakeAdapter, count: int) -> None:
    """Its operations take a row without an adapter for one of the last place's."""
    found = options({f"a{place}": make_adapter(f"a{place}") for place in range(count)}, "cpu")
    assert (found["max_loras"], found["max_cpu_loras"]) == (count + 1, count + 1)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_without_adapters_vllm_is_not_asked_for_room(device: Device) -> None:
    assert not any("lora" in name for name in options({}, device))


def options(modules: dict[str, str], device: Device = "gpu") -> dict[str, Any]:
    environ = {"MODEL_DIR": "/m", "LORA_MODULES": json.dumps(modules)}
    return engine_options(ModelSettings.from_env(environ), device, 1024)


async def test_each_row_is_generated_with_its_adapter(counting: Any) -> None:
    adapters = Adapters([Adapter("a", 1, "/a", 8), Adapter("b", 2, "/b", 8)])
    engine = Noting()
    generator = Generator(EnginePool([engine]), counting, 64, adapters)
    params = [SamplingParameters(lora_name=name) for name in ("b", None, "c", "a")]
    call = InferenceCall("", [b"1", b"2", b"3", b"4"], False, list(params))
    (rows,) = [rows async for rows in generator.run(call)]
    assert [(row.error.message if row.error else "") for row in rows] == [
        "", "", "'lora_name' has value 'c': no such adapter, known are a, b", "",
    ]  # fmt: skip
    assert [request.adapter and request.adapter.name for request in engine.asked] == ["b", None, "a"]


class Noting(ScriptedEngine):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> Any:
        self.asked.append(request)
        return await super().generate(request)
