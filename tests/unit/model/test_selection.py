"""Which backend serves the model, the reason when it is not the first choice, and what stops the start instead."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llm_model.engines import selection
from llm_model.engines.echo import EchoEngine
from llm_model.engines.gpus import Gpu
from llm_model.engines.pool import EnginePool
from llm_model.engines.selection import select_backend, start_backend
from llm_model.engines.worker_engine import WorkerSpec, WrongDevice
from llm_model.engines.worker_factories import ECHO, VLLM, vllm
from llm_model.engines.worker_wire import Setup
from llm_model.errors import EngineRefused, StartupError
from llm_model.settings import ModelSettings
from tests.unit.model.fake_engines import ScriptedEngine
from tests.unit.model.tiny_model import MAX_MODEL_LEN, write_model_folder

UNSUPPORTED = "vLLM 9.9 does not support the architecture OddForCausalLM"


class FakeVllm(ModuleType):
    """Stands in for ``vllm_engine``, the one file that imports vLLM."""

    VERSION = "9.9"

    def __init__(self, reason: str | None = None) -> None:
        super().__init__("llm_model.engines.vllm_engine")
        self.engines: list[tuple[str, dict[str, Any]]] = []
        self._reason = reason

    def unsupported_reason(self, model_dir: str) -> str | None:
        return self._reason

    def device(self) -> str:
        return "cpu"

    def VllmEngine(self, name: str, options: dict[str, Any], user_options: Any = ()) -> Any:
        self.engines.append((name, options))
        return SimpleNamespace(name=name)


def install(patch: pytest.MonkeyPatch, module: ModuleType | None) -> None:
    """Put ``module`` in the place of ``vllm_engine``; ``None``: its import fails. vLLM counts as installed."""
    import llm_model.engines as engines

    vllm = ModuleType("vllm")
    vllm.__spec__ = SimpleNamespace()  # type: ignore[assignment] - all that find_spec looks at
    patch.setitem(sys.modules, "vllm", vllm)
    patch.setitem(sys.modules, "llm_model.engines.vllm_engine", module)  # type: ignore[arg-type]
    patch.delattr(engines, "vllm_engine", raising=False)


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # type: ignore[arg-type]


def setup(folder: Path, options: dict[str, Any], **environ: str) -> Setup:
    """The first message to a worker."""
    settings = ModelSettings.from_env({"MODEL_DIR": str(folder), **environ})
    return Setup("vllm-0", settings, MAX_MODEL_LEN, options)


def choose(folder: Path | str, **environ: str) -> Any:
    return select_backend(ModelSettings.from_env({"MODEL_DIR": str(folder), **environ}))


# The choice


def specs(backend: Any) -> list[WorkerSpec]:
    """What the engines' processes would be started with."""
    return [slot.engine._spec for slot in backend.pool._slots]


def test_vllm_is_the_first_choice(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm())
    monkeypatch.setattr(selection, "installed_version", lambda: "9.9")
    backend = choose(model_folder)
    assert (backend.name, backend.version, backend.reason) == ("vllm", "9.9", "")
    (spec,) = specs(backend)
    assert (spec.name, spec.factory, spec.max_model_len) == ("vllm-0", VLLM, MAX_MODEL_LEN)
    assert backend.max_model_len == MAX_MODEL_LEN


def test_the_worker_makes_the_engine_of_the_settings(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVllm()
    install(monkeypatch, fake)
    own = {"VLLM_ENGINE_ARGS": '{"max_num_seqs": 3}', "DTYPE": "bf16"}
    _, device = vllm(setup(model_folder, {"max_num_seqs": 512, "kv_cache_memory_bytes": 7}, **own))
    assert device == "cpu"
    ((name, options),) = fake.engines
    assert (name, options["model"], options["dtype"]) == ("vllm-0", str(model_folder), "bfloat16")
    assert options["max_model_len"] == MAX_MODEL_LEN
    assert (options["max_num_seqs"], options["kv_cache_memory_bytes"]) == (3, 7)  # the operator, then the plan


def test_there_are_as_many_engines_as_asked_for(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm())
    backend = choose(model_folder, ENGINES_PER_GPU="3")
    assert [spec.name for spec in specs(backend)] == ["vllm-0", "vllm-1", "vllm-2"]


def test_echo_engines_that_are_counted_have_processes(model_folder: Path, without_vllm: None) -> None:
    backend = choose(model_folder, USE_VLLM="echo", ENGINES_PER_GPU="2")
    assert [(spec.name, spec.factory) for spec in specs(backend)] == [("echo-0", ECHO), ("echo-1", ECHO)]


def test_the_echo_backend(model_folder: Path, without_vllm: None) -> None:
    backend = choose(model_folder, USE_VLLM="echo")
    assert (backend.name, backend.reason, backend.max_model_len) == ("echo", "USE_VLLM=echo", MAX_MODEL_LEN)
    (slot,) = backend.pool._slots
    assert isinstance(slot.engine, EchoEngine)


@pytest.mark.parametrize("asked, length", [("32", 32), ("100000", 100000), ("", MAX_MODEL_LEN)])
def test_the_length_asked_for_goes_before_the_models(model_folder: Path, asked: str, length: int) -> None:
    assert choose(model_folder, USE_VLLM="echo", MAX_MODEL_LEN=asked).max_model_len == length


# The fallback


def refusing(refusal: EngineRefused) -> EnginePool:
    """A pool whose engine refuses to start."""

    class Refusing(ScriptedEngine):
        async def start(self) -> None:
            raise refusal

    return EnginePool([Refusing()])


async def test_engines_that_refuse_are_replaced(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, FakeVllm())
    chosen = dataclasses.replace(choose(model_folder), pool=refusing(EngineRefused(UNSUPPORTED)))
    other = dataclasses.replace(choose(model_folder, USE_VLLM="0"), pool=EnginePool([ScriptedEngine()]))
    monkeypatch.setattr(selection, "_transformers", lambda *args: dataclasses.replace(other, reason=args[-1]))
    with caplog.at_level(logging.WARNING, logger="llm.model"):
        running = await start_backend(chosen)
    assert (running.name, running.reason) == ("transformers", UNSUPPORTED)
    assert f"serving with transformers, because {UNSUPPORTED}" in caplog.text


async def test_force_vllm_allows_no_other_engines(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm())
    chosen = dataclasses.replace(choose(model_folder, FORCE_VLLM="1"), pool=refusing(EngineRefused(UNSUPPORTED)))
    with pytest.raises(StartupError) as caught:
        await start_backend(chosen)
    assert str(caught.value) == f"FORCE_VLLM is set, but {UNSUPPORTED}"


def test_gpus_that_nothing_counts_are_enough_for_an_engine(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm())
    monkeypatch.setattr(selection, "visible_gpus", lambda environ, uncounted: [Gpu(str(i)) for i in range(uncounted)])
    monkeypatch.setattr(selection, "expected_device", lambda present: "gpu")
    (spec,) = specs(choose(model_folder, TENSOR_PARALLEL_SIZE="2"))
    assert spec.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


async def test_a_vllm_for_cpus_is_planned_for_anew(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm())
    monkeypatch.setattr(selection, "visible_gpus", lambda environ, uncounted: [Gpu("0", 80 << 30)])
    monkeypatch.setattr(selection, "expected_device", lambda present: "gpu")
    backend = choose(model_folder)
    assert [(spec.gpu, spec.device) for spec in specs(backend)] == [("0", "gpu")]
    assert backend.instead is not None
    again = backend.instead(WrongDevice("cpu"))
    assert (again.name, [(spec.gpu, spec.device) for spec in specs(again)]) == ("vllm", [(None, "cpu")])


async def test_an_engine_that_cannot_start_is_no_case_for_another_backend(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(ScriptedEngine):
        async def start(self) -> None:
            raise StartupError("no memory")

    install(monkeypatch, FakeVllm())
    with pytest.raises(StartupError, match="no memory"):
        await start_backend(dataclasses.replace(choose(model_folder), pool=EnginePool([Broken()])))


def fallback_reason(folder: Path, log: pytest.LogCaptureFixture, **environ: str) -> str:
    with log.at_level(logging.WARNING, logger="llm.model"):
        backend = choose(folder, **environ)
    assert backend.name == "transformers"
    assert f"serving with transformers, because {backend.reason}" in log.text
    reason: str = backend.reason
    return reason


def test_vllm_is_not_wanted(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, FakeVllm())
    assert fallback_reason(model_folder, caplog, USE_VLLM="0") == "USE_VLLM=false"


def test_vllm_is_not_installed(model_folder: Path, without_vllm: None, caplog: pytest.LogCaptureFixture) -> None:
    assert fallback_reason(model_folder, caplog) == "vLLM is not installed"


def refusal(folder: Path) -> str:
    """What the worker says instead of making an engine."""
    with pytest.raises(EngineRefused) as caught:
        vllm(setup(folder, {}))
    return str(caught.value)


def test_vllm_cannot_be_imported(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert refusal(model_folder).startswith("vLLM cannot be imported: ")


def test_vllm_breaks_at_import(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "llm_model.engines.vllm_engine":
                raise RuntimeError("operator torchvision::nms does not exist\nmore lines")

    install(monkeypatch, FakeVllm())
    monkeypatch.delitem(sys.modules, "llm_model.engines.vllm_engine")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert refusal(model_folder) == "vLLM cannot be imported: operator torchvision::nms does not exist"


def test_vllm_does_not_support_the_model(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm(UNSUPPORTED))
    assert refusal(model_folder) == UNSUPPORTED


# No fallback


def test_force_vllm_allows_no_fallback(model_folder: Path, without_vllm: None) -> None:
    with pytest.raises(StartupError) as caught:
        choose(model_folder, FORCE_VLLM="1")
    assert str(caught.value) == "FORCE_VLLM is set, but vLLM is not installed"


def test_force_vllm_changes_nothing_where_vllm_serves(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeVllm())
    assert choose(model_folder, FORCE_VLLM="1").name == "vllm"


BROKEN = {
    "{": "is not valid JSON",
    "[]": "is not a JSON object",
    '"x"': "is not a JSON object",
    '{"max_position_embeddings": "long", "model_type": "llama"}': "max_position_embeddings",
}


@pytest.mark.parametrize("config", BROKEN)
@pytest.mark.parametrize("use_vllm", ["auto", "true", "false", "echo"])
def test_a_broken_configuration_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, use_vllm: str
) -> None:
    install(monkeypatch, FakeVllm())
    write_model_folder(tmp_path)
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(StartupError) as caught:
        choose(tmp_path, USE_VLLM=use_vllm)
    assert str(tmp_path) in str(caught.value)
    assert BROKEN[config] in str(caught.value)


def test_a_missing_folder_stops_the_start(tmp_path: Path, without_vllm: None) -> None:
    with pytest.raises(StartupError, match=r"config\.json cannot be read: No such file or directory"):
        choose(tmp_path / "nowhere")
    with pytest.raises(StartupError, match="MODEL_DIR is not set"):
        choose("")


def test_a_folder_without_a_tokenizer_stops_the_start(tmp_path: Path, without_vllm: None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(StartupError, match=f"^the tokenizer in {tmp_path} cannot be loaded: "):
        choose(tmp_path)
