"""What vLLM is asked for, and what it finds in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_model.engines import vllm_options
from llm_model.engines.vllm_options import Device, choose_dtype, engine_options, has_our_scheduler, prepare_environment
from llm_model.settings import ModelSettings


def options(device: Device = "gpu", max_model_len: int = 1024, **environ: str) -> dict[str, Any]:
    return engine_options(ModelSettings.from_env({"MODEL_DIR": "/m", **environ}), device, max_model_len)


PLAIN = {
    "model": "/m",
    "served_model_name": "m",
    "max_model_len": 1024,
    "tensor_parallel_size": 1,
    "trust_remote_code": False,
    "enable_prefix_caching": True,
    "scheduling_policy": "priority",
    "disable_log_stats": True,
}


@pytest.mark.parametrize(
    "release, policy",
    [((0, 10, 0), "fcfs"), ((0, 11, 2), "fcfs"), ((0, 12, 0), "priority"), ((0, 32, 0), "priority"), ((), "priority")],
)
def test_a_vllm_that_cannot_order_equal_requests_serves_them_as_they_come(
    monkeypatch: pytest.MonkeyPatch, release: tuple[int, ...], policy: str
) -> None:
    monkeypatch.setattr(vllm_options, "installed_release", lambda: release)
    assert options()["scheduling_policy"] == policy


def test_a_plain_start_on_a_gpu() -> None:
    expected = {"dtype": "auto", "max_num_seqs": 1040, "max_num_batched_tokens": 16384, "enforce_eager": False}
    assert options("gpu") == PLAIN | expected


def test_a_plain_start_on_a_cpu() -> None:
    found = options("cpu")
    assert found.pop("dtype") in ("auto", "float32")
    expected = {"max_num_seqs": 272, "max_num_batched_tokens": 4096, "enforce_eager": True}
    assert found == PLAIN | expected | {"gpu_memory_utilization": 0.3}


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_users_settings_are_passed_on(device: Device) -> None:
    found = options(
        device,
        DTYPE="half",
        SERVED_MODEL_NAME="name",
        TENSOR_PARALLEL_SIZE="2",
        TRUST_REMOTE_CODE="1",
        ENABLE_PREFIX_CACHING="0",
        ENABLE_CHUNKED_PREFILL="0",
        GPU_MEMORY_UTILIZATION="0.5",
        VLLM_QUANTIZATION="awq",
        VLLM_LOAD_FORMAT="dummy",
        VLLM_KV_CACHE_DTYPE="fp8",
        VLLM_MAX_NUM_SEQS="7",
        VLLM_MAX_NUM_BATCHED_TOKENS="99",
        VLLM_COMPILATION_CONFIG='{"level": 2}',
        VLLM_ENFORCE_EAGER="0",
    )
    assert found == PLAIN | {
        "dtype": "float16",
        "served_model_name": "name",
        "tensor_parallel_size": 2,
        "trust_remote_code": True,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": False,
        "gpu_memory_utilization": 0.5,
        "quantization": "awq",
        "load_format": "dummy",
        "kv_cache_dtype": "fp8",
        "max_num_seqs": 7,
        "max_num_batched_tokens": 99,
        "compilation_config": {"level": 2},
        "enforce_eager": False,
    }


def test_a_step_takes_the_longest_prompt() -> None:
    assert options("cpu", max_model_len=8192)["max_num_batched_tokens"] == 8192
    assert options("gpu", max_model_len=32768)["max_num_batched_tokens"] == 16384, "it is computed in parts"
    whole = options("gpu", max_model_len=32768, ENABLE_CHUNKED_PREFILL="0")
    assert whole["max_num_batched_tokens"] == 32768


def test_a_compilation_level_is_a_number() -> None:
    assert options(VLLM_COMPILATION_CONFIG="3")["compilation_config"] == 3


def test_the_load_format_awq_means_auto() -> None:
    assert options(VLLM_LOAD_FORMAT="awq")["load_format"] == "auto"


def test_own_engine_arguments_win_over_all_others() -> None:
    found = options(
        DTYPE="half", VLLM_ENGINE_ARGS='{"dtype": "float32", "max_num_seqs": 3, "swap_space": null, "model": "/other"}'
    )
    assert (found["dtype"], found["max_num_seqs"], found["swap_space"], found["model"]) == (
        "float32",
        3,
        None,
        "/other",
    )


@pytest.mark.parametrize(
    "dtype, device, flags, expected",
    [
        ("auto", "cpu", set(), "float32"),
        ("auto", "cpu", {"avx2", "avx512f"}, "float32"),
        ("auto", "cpu", {"avx512f", "avx512_bf16"}, "auto"),
        ("auto", "cpu", {"amx_bf16"}, "auto"),
        ("bfloat16", "cpu", set(), "bfloat16"),
        ("float32", "cpu", {"amx_bf16"}, "float32"),
        ("auto", "gpu", set(), "auto"),
    ],
)
def test_the_type_of_weights_follows_the_processor(dtype: str, device: Device, flags: set[str], expected: str) -> None:
    assert choose_dtype(dtype, device, flags) == expected


@pytest.mark.parametrize("release, expected", [((0, 11, 0), "float32"), ((0, 17, 1), "float32"), ((0, 18, 0), "auto")])
def test_releases_that_die_of_structures_in_bf16_get_float32(
    monkeypatch: pytest.MonkeyPatch, release: tuple[int, ...], expected: str
) -> None:
    monkeypatch.setattr(vllm_options, "installed_release", lambda: release)
    assert choose_dtype("auto", "cpu", {"amx_bf16"}) == expected
    assert choose_dtype("bfloat16", "cpu", {"amx_bf16"}) == "bfloat16"


METAX_NODES = (["mxcd"], ["mxc0"], ["mxc0", "mxc1"])


@pytest.fixture
def no_devices(tmp_path: Path) -> Path:
    """A stand-in for /dev without a MetaX GPU."""
    folder = tmp_path / "no-devices"
    folder.mkdir()
    (folder / "nvidia0").touch()
    return folder


@pytest.fixture(params=METAX_NODES, ids=str)
def metax(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A stand-in for /dev with a MetaX GPU's nodes."""
    for name in request.param:
        (tmp_path / name).touch()
    return tmp_path


def test_vllms_plugins_are_for_metax_only(metax: Path, no_devices: Path) -> None:
    assert "VLLM_PLUGINS" not in prepared({}, metax)
    assert prepared({"VLLM_PLUGINS": "one"}, metax)["VLLM_PLUGINS"] == "one"
    assert prepared({}, no_devices)["VLLM_PLUGINS"] == ""
    assert prepared({"VLLM_PLUGINS": "one"}, no_devices)["VLLM_PLUGINS"] == "one"


@pytest.mark.parametrize("devices, kept", [("", False), ("  ", False), ("0", True), ("-1", True)])
def test_blank_visible_devices_are_removed(devices: str, kept: bool) -> None:
    assert ("CUDA_VISIBLE_DEVICES" in prepared({"CUDA_VISIBLE_DEVICES": devices})) == kept
    assert "CUDA_VISIBLE_DEVICES" not in prepared({})


def prepared(
    environ: dict[str, str], device_root: Path = Path("/dev"), cpus: float = 8, **settings: str
) -> dict[str, str]:
    prepare_environment(ModelSettings.from_env(settings), environ, device_root, cpus)
    return environ


@pytest.mark.parametrize("cpus, told", [(1, "false"), (2, "false"), (2.5, "true"), (3, "true"), (64, "true")])
def test_few_cores_are_not_shared_out_among_the_tokenizers_threads(cpus: float, told: str) -> None:
    assert prepared({}, cpus=cpus)["TOKENIZERS_PARALLELISM"] == told


def test_the_environment_is_offline_quiet_and_without_usage_reports() -> None:
    found = prepared({}, VLLM_LOG_LEVEL="error")
    assert (found["VLLM_NO_USAGE_STATS"], found["HF_HUB_OFFLINE"], found["VLLM_LOGGING_LEVEL"]) == ("1", "1", "ERROR")


def test_what_the_user_set_stays() -> None:
    own = dict.fromkeys(prepared({}), "the user's")
    assert prepared(dict(own)) == own


@pytest.mark.parametrize(
    ("version", "ours"),
    [
        ("0.25.1", True),
        ("0.32.0+cu129", True),
        ("0.32.0+cpu", True),
        ("0.32.0+vendor3.1", False),
        ("0.32.1", False),
        ("0.11.0.post2", False),
        ("", False),
    ],
)
def test_our_scheduler_is_for_vllms_that_it_was_compared_with(
    monkeypatch: pytest.MonkeyPatch, version: str, ours: bool
) -> None:
    monkeypatch.setattr(vllm_options, "installed_version", lambda: version)
    assert has_our_scheduler() == ours
