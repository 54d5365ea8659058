"""Settings of the model process: defaults, blanks, and one line for every value that is not allowed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.model_package import MODEL_VERSION_DIR
from llm_model.settings import DEFAULT_SYSTEM_PROMPT, ModelSettings, SettingsError, SpeculationSettings, WarmupSettings
from tests.conftest import ROOT

BOOLEAN = "0 or 1"
INTEGER = "a whole number from {} to 2147483647"
DTYPES = "one of auto, half, fp16, bf16, float, float16, bfloat16, float32"
LEVELS = "one of debug, info, warning, error"

# Variable → the setting it fills, a good value and what it becomes, and bad values with what is allowed.
VARIABLES: dict[str, tuple[str, str, Any, list[str], str]] = {
    "USE_VLLM": ("use_vllm", "FALSE", "false", ["maybe", "2"], "auto, true or false"),
    "FORCE_VLLM": ("force_vllm", "1", True, ["2", "ja"], BOOLEAN),
    "DTYPE": ("dtype", "half", "float16", ["int8", "float64"], DTYPES),
    "TRANSFORMERS_DTYPE": ("transformers_dtype", "bf16", "bfloat16", ["int8"], DTYPES),
    "GPU_MEMORY_UTILIZATION": (
        "gpu_memory_utilization", "0.9", 0.9, ["0", "1.1", "-1", "nan", "inf", "90%"], "a number above 0, at most 1",
    ),
    "MAX_MODEL_LEN": ("max_model_len", "1024", 1024, ["1", "0", "-1", "1k", "1.5", "9" * 5000], INTEGER.format(2)),
    "ENABLE_PREFIX_CACHING": ("enable_prefix_caching", "off", False, ["x"], BOOLEAN),
    "ENABLE_CHUNKED_PREFILL": ("enable_chunked_prefill", "yes", True, ["x"], BOOLEAN),
    "VLLM_QUANTIZATION": ("quantization", "awq", "awq", [], ""),
    "VLLM_LOAD_FORMAT": ("load_format", "awq", "awq", [], ""),
    "VLLM_KV_CACHE_DTYPE": ("kv_cache_dtype", "fp8", "fp8", [], ""),
    "VLLM_MAX_NUM_SEQS": ("max_num_seqs", "7", 7, ["0", "x"], INTEGER.format(1)),
    "VLLM_MAX_NUM_BATCHED_TOKENS": ("max_num_batched_tokens", "7", 7, ["0", "x"], INTEGER.format(1)),
    "VLLM_COMPILATION_CONFIG": (
        "compilation_config", '{"level": 3}', '{"level": 3}', ["[3]", "{", "O3", "²"], "a JSON object",
    ),
    "VLLM_ENFORCE_EAGER": ("enforce_eager", "true", True, ["x"], BOOLEAN),
    "VLLM_ENGINE_ARGS": ("engine_args", '{"a": [1]}', (("a", [1]),), ["[]", "{", "1", "a=1"], "a JSON object"),
    "LORA_MODULES": (
        "lora_modules", '{"a": "/b"}', (("a", "/b"),), ['{"a": 1}', '{" ": "/b"}', '{"a": ""}'],
        "a JSON object: adapter's name to its folder",
    ),
    "ENGINES_PER_GPU": ("engines_per_gpu", "2", 2, ["0", "65", "many"], "auto or a number from 1 to 64"),
    "ENGINE_START_S": (
        "engine_start_s", "600", 600.0, ["0", "-1", "86401", "nan"], "a number above 0, at most 86400",
    ),
    "ENGINE_HANG_S": (
        "engine_hang_s", "2.5", 2.5, ["0", "-1", "86401", "nan"], "a number above 0, at most 86400",
    ),
    "TENSOR_PARALLEL_SIZE": ("tensor_parallel_size", "2", 2, ["0", "x"], INTEGER.format(1)),
    "TRUST_REMOTE_CODE": ("trust_remote_code", "1", True, ["x"], BOOLEAN),
    "LOG_LEVEL": ("log_level", "Debug", "DEBUG", ["loud"], LEVELS),
    "LOG_FORMAT": ("log_format", "JSON", "json", ["xml"], "one of text, json"),
    "VLLM_LOG_LEVEL": ("vllm_log_level", "error", "ERROR", ["loud"], LEVELS),
    "SYSTEM_PROMPT": ("system_prompt", "  Be brief. ", "Be brief.", [], ""),
    "MODEL_DIR": ("model_dir", "/models/x", "/models/x", [], ""),
    "SERVED_MODEL_NAME": ("served_name", "mine", "mine", [], ""),
}  # fmt: skip
SPECULATION_VARIABLES: dict[str, tuple[str, str, Any, list[str], str]] = {
    "ENABLE_SPECULATIVE_DECODING": ("enabled", "1", True, ["x"], BOOLEAN),
    "SPEC_METHOD": ("method", "Eagle3", "eagle3", ["medusa"], "one of ngram, draft_model, suffix, eagle3"),
    "SPEC_NUM_SPECULATIVE_TOKENS": ("num_tokens", "3", 3, ["0", "65", "x"], "a whole number from 1 to 64"),
    "SPEC_NGRAM_LOOKUP_MAX": ("ngram_lookup_max", "9", 9, ["0", "1025"], "a whole number from 1 to 1024"),
    "SPEC_NGRAM_LOOKUP_MIN": ("ngram_lookup_min", "2", 2, ["0", "1025"], "a whole number from 1 to 1024"),
    "SPEC_DRAFT_MODEL_DIR": ("draft_dir", "/draft", "/draft", [], ""),
    "SPEC_DRAFT_OPTIONAL": ("draft_optional", "1", True, ["x"], BOOLEAN),
    "SPEC_DRAFT_MAX_MODEL_LEN": ("draft_max_model_len", "512", 512, ["1", "x"], INTEGER.format(2)),
}
WARMUP_VARIABLES: dict[str, tuple[str, str, Any, list[str], str]] = {
    "WARMUP_DATA_PATH": ("data_path", "/data.jsonl", "/data.jsonl", [], ""),
    "WARMUP_NUM_SAMPLES": ("num_samples", "0", 0, ["-1", "x"], INTEGER.format(0)),
    "WARMUP_NUM_SAMPLES_CAP": ("num_samples", "8", 8, ["-1", "x"], INTEGER.format(0)),
    "WARMUP_REPEAT": ("repeat", "0", 0, ["-1", "x"], INTEGER.format(0)),
    "WARMUP_MAX_S": ("max_s", "1.5", 1.5, ["0", "-1", "3601", "nan"], "a number above 0, at most 3600"),
}
BAD = [
    (name, value, allowed)
    for name, (*_, bad, allowed) in (VARIABLES | WARMUP_VARIABLES | SPECULATION_VARIABLES).items()
    for value in bad
]  # fmt: skip


def read(**environ: str) -> ModelSettings:
    return ModelSettings.from_env(environ)


def test_defaults_of_a_plain_start() -> None:
    found = dataclasses.asdict(read())
    unset = {name: value for name, value in found.items() if value is None}
    assert set(unset) == {
        "gpu_memory_utilization",
        "max_model_len",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "quantization",
        "load_format",
        "kv_cache_dtype",
        "max_num_seqs",
        "max_num_batched_tokens",
        "compilation_config",
        "enforce_eager",
        "engines_per_gpu",
    }
    assert {name: value for name, value in found.items() if value is not None} == {
        "model_dir": "",
        "served_name": "smollm2",
        "use_vllm": "auto",
        "force_vllm": False,
        "dtype": "auto",
        "transformers_dtype": "auto",
        "max_model_len_cap": 8192,
        "engine_args": (),
        "engine_start_s": 3600.0,
        "engine_hang_s": 60.0,
        "lora_modules": (),
        "speculation": dataclasses.asdict(SpeculationSettings()),
        "tensor_parallel_size": 1,
        "trust_remote_code": False,
        "log_level": "INFO",
        "log_format": "text",
        "vllm_log_level": "WARNING",
        "system_prompt": DEFAULT_SYSTEM_PROMPT,
        "warmup": {"data_path": None, "num_samples": 64, "repeat": 1, "max_s": 60.0},
    }


def test_every_setting_has_its_variable_here() -> None:
    covered = {field for field, *_ in VARIABLES.values()} | {"warmup", "speculation", "max_model_len_cap"}
    assert covered == {field.name for field in dataclasses.fields(ModelSettings)}
    assert {field for field, *_ in WARMUP_VARIABLES.values()} == {f.name for f in dataclasses.fields(WarmupSettings)}


def test_every_setting_of_speculation_has_its_variable_here() -> None:
    covered = {field for field, *_ in SPECULATION_VARIABLES.values()}
    assert covered == {field.name for field in dataclasses.fields(SpeculationSettings)}


@pytest.mark.parametrize("name", SPECULATION_VARIABLES)
def test_a_good_value_for_speculation_is_taken(name: str) -> None:
    field, value, expected, *_ = SPECULATION_VARIABLES[name]
    assert getattr(read(**{name: value}).speculation, field) == expected != getattr(read().speculation, field)


def test_the_longest_sequence_is_not_shorter_than_the_shortest() -> None:
    lengths = {"SPEC_NGRAM_LOOKUP_MIN": "9", "SPEC_NGRAM_LOOKUP_MAX": "4"}
    read(**lengths)  # of no concern while there is no speculation
    with pytest.raises(SettingsError, match=r"^SPEC_NGRAM_LOOKUP_MIN=9: at most SPEC_NGRAM_LOOKUP_MAX=4$"):
        read(**lengths, ENABLE_SPECULATIVE_DECODING="1")


@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=repr)
def test_blank_means_unset(blank: str) -> None:
    assert read(**dict.fromkeys([*VARIABLES, *WARMUP_VARIABLES, *SPECULATION_VARIABLES, "MODEL_ID"], blank)) == read()


@pytest.mark.parametrize("name", VARIABLES)
def test_a_good_value_is_taken(name: str) -> None:
    field, value, expected, *_ = VARIABLES[name]
    default = getattr(read(), field)
    assert getattr(read(**{name: f" {value} "}), field) == expected != default


@pytest.mark.parametrize("name", WARMUP_VARIABLES)
def test_a_good_value_for_the_warm_up_is_taken(name: str) -> None:
    field, value, expected, *_ = WARMUP_VARIABLES[name]
    assert getattr(read(**{name: value}).warmup, field) == expected != getattr(read().warmup, field)


@pytest.mark.parametrize("name, value, allowed", BAD)
def test_a_bad_value_is_one_line_with_variable_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{name: value})
    assert str(caught.value) == f"{name}={value}: {allowed}"


def test_a_bad_value_of_many_lines_is_still_one_line() -> None:
    with pytest.raises(SettingsError) as caught:
        read(VLLM_ENGINE_ARGS='{\n  "a": 1,\n}')
    assert str(caught.value) == 'VLLM_ENGINE_ARGS={ "a": 1, }: a JSON object'


@pytest.mark.parametrize(
    "value, expected",
    [("1", "true"), ("true", "true"), ("on", "true"), ("0", "false"), ("No", "false"), ("echo", "echo")],
)
def test_the_spellings_of_use_vllm(value: str, expected: str) -> None:
    assert read(USE_VLLM=value).use_vllm == expected


def test_a_compilation_level_is_a_number() -> None:
    assert read(VLLM_COMPILATION_CONFIG="3").compilation_config == "3"


def test_the_cap_bounds_the_warm_up() -> None:
    samples = {"WARMUP_NUM_SAMPLES": "100"}
    assert read(**samples).warmup.num_samples == 100
    assert read(**samples, WARMUP_NUM_SAMPLES_CAP="10").warmup.num_samples == 10
    assert read(**samples, WARMUP_NUM_SAMPLES_CAP="1000").warmup.num_samples == 100


@pytest.mark.parametrize("value", ["auto", "AUTO", ""])
def test_engines_per_gpu_may_be_left_to_the_model(value: str) -> None:
    assert read(ENGINES_PER_GPU=value).engines_per_gpu is None


@pytest.mark.parametrize(
    "environ, name",
    [
        ({}, "smollm2"),
        ({"MODEL_ID": "YukinoStuki/Qwen2.5-0.5B-Plus-LLM"}, "Qwen2.5-0.5B-Plus-LLM"),
        ({"MODEL_ID": "modelscope:a/b"}, "b"),
        ({"MODEL_ID": "hf:org/model"}, "model"),
        ({"MODEL_ID": "file:/models/mine/"}, "mine"),
        ({"MODEL_ID": "bundled:smollm2"}, "smollm2"),
        ({"MODEL_DIR": "/models/course-qa/"}, "course-qa"),
        ({"MODEL_ID": "a/b", "MODEL_DIR": "/models/x"}, "b"),
        ({"MODEL_ID": "a/b", "MODEL_DIR": "/models/x", "SERVED_MODEL_NAME": "org/name"}, "org/name"),
        ({"MODEL_ID": "a/b", "SERVED_MODEL_NAME": " "}, "b"),
    ],
)
def test_the_served_name(environ: dict[str, str], name: str) -> None:
    assert read(**environ).served_name == name


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().served_name = "x"  # type: ignore[misc]


# The command


def check(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the file with no packages in reach: the launcher's interpreter may have none."""
    return subprocess.run(
        [sys.executable, "-S", "-I", str(MODEL_VERSION_DIR / "settings.py"), *arguments],
        env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_check_says_nothing_when_all_is_well() -> None:
    done = check("--check", MODEL_DIR="/nowhere", USE_VLLM="echo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_check_says_what_is_wrong_in_one_line() -> None:
    done = check("--check", MAX_MODEL_LEN="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "MAX_MODEL_LEN=many: a whole number from 2 to 2147483647\n"


def test_anything_but_check_is_refused() -> None:
    assert check().returncode == 2


# The two processes


@pytest.mark.skipif(not (ROOT / "gateway" / "settings.py").is_file(), reason="the gateway is not written yet")
def test_both_processes_have_the_same_defaults_where_they_share_a_variable() -> None:
    from gateway.settings import GatewaySettings

    gateway, model = GatewaySettings.from_env({}), read()
    assert gateway.system_prompt == model.system_prompt == DEFAULT_SYSTEM_PROMPT
    assert (gateway.served_model_name, gateway.log_level, gateway.log_format) == (
        model.served_name,
        model.log_level,
        model.log_format,
    )
    for environ in ({"MODEL_ID": "a/b:c"}, {"MODEL_DIR": "/x/y/"}, {"SERVED_MODEL_NAME": "z"}, {"MODEL_ID": "hf:q/r"}):
        assert GatewaySettings.from_env(environ).served_model_name == read(**environ).served_name, json.dumps(environ)
