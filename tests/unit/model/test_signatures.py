"""The adapter of vLLM against the versions it is written for, as their sources declare themselves.

``signatures/VERSION.json`` is what ``signatures/record.py`` found in a version's sources.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.model_package import MODEL_VERSION_DIR
from llm_model.engines.speculation import _SINCE
from llm_model.engines.stats import EngineStats
from llm_model.engines.vllm_figures import take_iteration_stats, take_scheduler_stats
from llm_model.engines.vllm_options import engine_options
from llm_model.engines.vllm_sampling import sampling_fields, structure_fields
from llm_model.parameters import StructuredOutputs, parse
from llm_model.settings import ModelSettings
from tests.conftest import ROOT

FOLDER = Path(__file__).parent / "signatures"
VERSIONS = ("0.10.0", "0.11.0", "0.19.0", "0.25.1", "0.32.0", "0.33.0")
ENGINE = ast.parse((MODEL_VERSION_DIR / "engines" / "vllm_engine.py").read_text(encoding="utf-8"))

# What every engine is started with, whatever is set; an older vLLM may lack some, which is then left out.
ALL_SET = {
    "MODEL_DIR": "/m",
    "GPU_MEMORY_UTILIZATION": "0.5",
    "ENABLE_CHUNKED_PREFILL": "1",
    "VLLM_QUANTIZATION": "awq",
    "VLLM_LOAD_FORMAT": "dummy",
    "VLLM_KV_CACHE_DTYPE": "fp8",
    "VLLM_COMPILATION_CONFIG": "3",
    "ENABLE_SPECULATIVE_DECODING": "1",
}

by_version = pytest.mark.parametrize("version", VERSIONS)


def recorded(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{version}.json").read_text(encoding="utf-8"))
    return found


def keywords_of(call: str) -> set[str]:
    """The keyword arguments that the adapter passes in a call of that name."""
    calls = [node for node in ast.walk(ENGINE) if isinstance(node, ast.Call) and ast.unparse(node.func) == call]
    assert calls, call
    return {keyword.arg for node in calls for keyword in node.keywords if keyword.arg}


def release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@by_version
def test_every_engine_argument_of_ours_is_known(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_model.engines.vllm_options.installed_release", lambda: release(version))
    options = engine_options(ModelSettings.from_env(ALL_SET), "gpu", 1024)
    assert set(options) <= set(recorded(version)["engine_arguments"])


@by_version
def test_adapters_have_their_engine_arguments(version: str) -> None:
    lora = {"enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank"}
    assert lora <= set(recorded(version)["engine_arguments"])
    assert {"lora_name", "lora_int_id", "lora_path"} <= set(recorded(version)["lora_request"])


@by_version
def test_every_sampling_parameter_is_known(version: str) -> None:
    known = set(recorded(version)["sampling_params"])
    assert set(sampling_fields(parse(b"{}"))) | {"detokenize", "output_kind"} <= known
    assert ("skip_clone" in known) == (release(version) >= (0, 19))  # the adapter asks the class itself


@by_version
def test_structured_outputs_have_one_of_two_names(version: str) -> None:
    found = recorded(version)
    newer = "StructuredOutputsParams" in found["sampling_params_classes"]
    assert newer == (release(version) >= (0, 11))
    assert newer or "GuidedDecodingParams" in found["sampling_params_classes"]
    assert ("structured_outputs" if newer else "guided_decoding") in found["sampling_params"]
    fields = structure_fields(StructuredOutputs(choice=("a", "b")))
    assert fields == {"choice": ["a", "b"]}


@by_version
def test_the_engine_is_called_with_arguments_it_has(version: str) -> None:
    found = recorded(version)
    assert keywords_of("self._llm.generate") <= set(found["generate"])
    assert found["generate"][:4] == ["self", "prompt", "sampling_params", "request_id"]  # passed by position
    assert {"engine_args", "stat_loggers"} <= set(found["from_engine_args"])
    assert found["record"][1:3] == ["scheduler_stats", "iteration_stats"]
    assert "EngineDeadError" in found["engine_exceptions"]


@by_version
def test_bad_requests_are_client_errors_from_028_on(version: str) -> None:
    assert ("VLLMClientError" in recorded(version)["exceptions"]) == (release(version) >= (0, 28))


class Strict(SimpleNamespace):
    """Has the fields of one version's class and no others: asking for another one is an error, as there."""

    @staticmethod
    def of(names: list[str], **values: Any) -> Strict:
        given = {name: value for name, value in values.items() if name in names}
        return Strict(**{**dict.fromkeys(names, 0), **given})


@by_version
def test_the_figures_are_read_from_the_fields_there_are(version: str) -> None:
    found = recorded(version)
    finished = Strict.of(found["finished_request_stats"], finish_reason="stop", e2e_latency=2.0, queued_time=1.0)
    finished.num_prompt_tokens, finished.num_generation_tokens = 5, 3
    step = Strict.of(
        found["iteration_stats"],
        prompt_token_stats=SimpleNamespace(total=5),
        num_prompt_tokens=5,
        num_generation_tokens=3,
        finished_requests=[finished],
        time_to_first_tokens_iter=[0.5],
        inter_token_latencies_iter=[0.1, 0.1],
        time_per_output_tokens_iter=[0.1, 0.1],
    )
    stats = EngineStats()
    take_iteration_stats(stats, step)
    scheduler = Strict.of(found["scheduler_stats"], num_running_reqs=2, num_waiting_reqs=1, kv_cache_usage=0.25)
    scheduler.spec_decoding_stats = None
    take_scheduler_stats(stats, scheduler)
    assert stats.counters["vllm:prompt_tokens_total", ()] == 5
    assert stats.counters["vllm:generation_tokens_total", ()] == 3
    assert sum(stats.histograms["vllm:inter_token_latency_seconds"].counts) == 2
    assert stats.histograms["vllm:request_prompt_tokens"].total == 5
    assert (stats.gauges["vllm:num_requests_running"], stats.gauges["vllm:kv_cache_usage_perc"]) == (2, 0.25)


def test_the_methods_versions_are_those_of_the_recorded_ones() -> None:
    assert release(VERSIONS[0]) < min(_SINCE.values())
    assert max(_SINCE.values()) < release("0.19.0")


def test_the_installed_version_is_recorded_as_it_is(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    from llm_model.engines.vllm_options import installed_release

    version = ".".join(map(str, installed_release()))
    if not (FOLDER / f"{version}.json").is_file():
        pytest.skip(f"vLLM {version} is not recorded")
    program = tmp_path / "record.py"
    program.write_bytes((FOLDER / "record.py").read_bytes())
    command = [sys.executable, str(program), version, str(Path(spec.origin).parent)]
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    assert json.loads((tmp_path / f"{version}.json").read_text(encoding="utf-8")) == recorded(version)
