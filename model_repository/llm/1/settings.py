"""Settings of the model process, read once from the environment.

Standard library only and without relative imports: ``python settings.py --check`` lets the launcher validate the
environment before anything starts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Backend = Literal["auto", "true", "false", "echo"]
Dtype = Literal["auto", "float16", "bfloat16", "float32"]
SpeculationMethod = Literal["ngram", "draft_model", "suffix", "eagle3"]

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_DTYPES = {"auto": "auto", "half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32"} | {
    name: name for name in ("float16", "bfloat16", "float32")
}
_LOG_LEVELS = {name.lower(): name for name in ("DEBUG", "INFO", "WARNING", "ERROR")}
# "echo" answers with the prompt's own tokens: a development backend, for measuring everything but the model.
_BACKENDS = {"auto": "auto", "echo": "echo"} | dict.fromkeys(_TRUE, "true") | dict.fromkeys(_FALSE, "false")
_DEFAULT_MAX_MODEL_LEN = 8192  # cap on the model's own length while MAX_MODEL_LEN is unset
_DEFAULT_MODEL_ID = "bundled:smollm2"
_SPECULATION_METHODS = {name: name for name in ("ngram", "draft_model", "suffix", "eagle3")}

# The gateway's default too (a test compares them): the warm-up fills the prefix cache with it.
DEFAULT_SYSTEM_PROMPT = (
    "你是《大规模并行处理器程序设计》课程的答题助手。只输出答案正文：直接给出定义、关键术语和结论，用词与教材一致；"
    "不复述题目，不写思考过程、寒暄或举例。题目要求代码时，只给最短可用的核心代码。"
)


class SettingsError(ValueError):
    """A variable has a value that is not allowed: one line with variable, value and what is allowed."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={' '.join(value.split())}: {allowed}")


class Environment:
    """Typed reads of environment variables; blank means unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def flag(self, name: str, default: bool) -> bool:
        found: bool = self._lookup(name, {v: True for v in _TRUE} | {v: False for v in _FALSE}, default, "0 or 1")
        return found

    def optional_flag(self, name: str) -> bool | None:
        return None if self.text(name) is None else self.flag(name, False)

    def choice(self, name: str, choices: Mapping[str, str], default: str, allowed: str | None = None) -> str:
        found: str = self._lookup(name, choices, default, allowed or "one of " + ", ".join(choices))
        return found

    def integer(
        self, name: str, default: int | None, minimum: int, maximum: int = 2**31 - 1, allowed: str | None = None
    ) -> int | None:
        raw = self.text(name)
        if raw is None:
            return default
        try:
            value = int(raw)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            raise SettingsError(name, raw, allowed or f"a whole number from {minimum} to {maximum}")
        return value

    def number(self, name: str, default: float | None, above: float, maximum: float) -> float | None:
        raw = self.text(name)
        if raw is None:
            return default
        try:
            value = float(raw)
        except ValueError:
            value = above
        if not above < value <= maximum:
            raise SettingsError(name, raw, f"a number above {above:g}, at most {maximum:g}")
        return value

    def json_object(self, name: str) -> dict[str, Any]:
        raw = self.text(name)
        if raw is None:
            return {}
        try:
            value = json.loads(raw)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise SettingsError(name, raw, "a JSON object")
        return value

    def _lookup(self, name: str, choices: Mapping[str, Any], default: Any, allowed: str) -> Any:
        raw = self.text(name)
        if raw is None:
            return default
        if raw.lower() not in choices:
            raise SettingsError(name, raw, allowed)
        return choices[raw.lower()]


@dataclass(frozen=True)
class WarmupSettings:
    """What is generated before the model is ready. Times in seconds."""

    data_path: str | None = None
    num_samples: int = 64
    repeat: int = 1
    max_s: float = 60.0

    @staticmethod
    def from_env(env: Environment) -> WarmupSettings:
        samples = env.integer("WARMUP_NUM_SAMPLES", 64, 0) or 0
        cap = env.integer("WARMUP_NUM_SAMPLES_CAP", samples, 0) or 0
        return WarmupSettings(
            data_path=env.text("WARMUP_DATA_PATH"),
            num_samples=min(samples, cap),
            repeat=env.integer("WARMUP_REPEAT", 1, 0) or 0,
            max_s=env.number("WARMUP_MAX_S", 60.0, 0.0, 3600.0) or 60.0,
        )


@dataclass(frozen=True)
class SpeculationSettings:
    """How tokens are guessed ahead of the model, which then checks several in one step. Lengths in tokens."""

    enabled: bool = False
    method: SpeculationMethod = "ngram"
    num_tokens: int = 6
    ngram_lookup_max: int = 8
    ngram_lookup_min: int = 1
    draft_dir: str | None = None
    draft_optional: bool = False
    draft_max_model_len: int | None = None

    @staticmethod
    def from_env(env: Environment) -> SpeculationSettings:
        lookup_max = env.integer("SPEC_NGRAM_LOOKUP_MAX", 8, 1, 1024) or 8
        lookup_min = env.integer("SPEC_NGRAM_LOOKUP_MIN", 1, 1, 1024) or 1
        enabled = env.flag("ENABLE_SPECULATIVE_DECODING", False)
        if enabled and lookup_min > lookup_max:
            raise SettingsError("SPEC_NGRAM_LOOKUP_MIN", str(lookup_min), f"at most SPEC_NGRAM_LOOKUP_MAX={lookup_max}")
        return SpeculationSettings(
            enabled=enabled,
            method=env.choice("SPEC_METHOD", _SPECULATION_METHODS, "ngram"),  # type: ignore[arg-type]
            num_tokens=env.integer("SPEC_NUM_SPECULATIVE_TOKENS", 6, 1, 64) or 6,
            ngram_lookup_max=lookup_max,
            ngram_lookup_min=lookup_min,
            draft_dir=env.text("SPEC_DRAFT_MODEL_DIR"),
            draft_optional=env.flag("SPEC_DRAFT_OPTIONAL", False),
            draft_max_model_len=env.integer("SPEC_DRAFT_MAX_MODEL_LEN", None, 2),
        )


@dataclass(frozen=True)
class ModelSettings:
    """Everything the model process is told. ``None`` leaves a choice to the engine."""

    model_dir: str
    served_name: str
    use_vllm: Backend = "auto"
    force_vllm: bool = False
    dtype: Dtype = "auto"
    transformers_dtype: Dtype = "auto"
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_model_len_cap: int = _DEFAULT_MAX_MODEL_LEN
    enable_prefix_caching: bool | None = None
    enable_chunked_prefill: bool | None = None
    quantization: str | None = None
    load_format: str | None = None
    kv_cache_dtype: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    compilation_config: str | None = None
    enforce_eager: bool | None = None
    engine_args: tuple[tuple[str, Any], ...] = ()
    lora_modules: tuple[tuple[str, str], ...] = ()
    speculation: SpeculationSettings = SpeculationSettings()
    engines_per_gpu: int | None = None
    engine_start_s: float = 3600.0
    engine_hang_s: float = 60.0
    tensor_parallel_size: int = 1
    trust_remote_code: bool = False
    log_level: str = "INFO"
    log_format: str = "text"
    vllm_log_level: str = "WARNING"
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    warmup: WarmupSettings = WarmupSettings()

    @staticmethod
    def from_env(environ: Mapping[str, str]) -> ModelSettings:
        """Read the environment. Raises :class:`SettingsError` at the first value that is not allowed."""
        env = Environment(environ)
        compilation = env.text("VLLM_COMPILATION_CONFIG")
        if compilation is not None and not (compilation.isascii() and compilation.isdigit()):
            env.json_object("VLLM_COMPILATION_CONFIG")
        return ModelSettings(
            model_dir=env.text("MODEL_DIR") or "",
            served_name=served_name(env),
            use_vllm=env.choice("USE_VLLM", _BACKENDS, "auto", "auto, true or false"),  # type: ignore[arg-type]
            force_vllm=env.flag("FORCE_VLLM", False),
            dtype=env.choice("DTYPE", _DTYPES, "auto"),  # type: ignore[arg-type]
            transformers_dtype=env.choice("TRANSFORMERS_DTYPE", _DTYPES, "auto"),  # type: ignore[arg-type]
            gpu_memory_utilization=env.number("GPU_MEMORY_UTILIZATION", None, 0.0, 1.0),
            max_model_len=env.integer("MAX_MODEL_LEN", None, 2),
            enable_prefix_caching=env.optional_flag("ENABLE_PREFIX_CACHING"),
            enable_chunked_prefill=env.optional_flag("ENABLE_CHUNKED_PREFILL"),
            quantization=env.text("VLLM_QUANTIZATION"),
            load_format=env.text("VLLM_LOAD_FORMAT"),
            kv_cache_dtype=env.text("VLLM_KV_CACHE_DTYPE"),
            max_num_seqs=env.integer("VLLM_MAX_NUM_SEQS", None, 1),
            max_num_batched_tokens=env.integer("VLLM_MAX_NUM_BATCHED_TOKENS", None, 1),
            compilation_config=compilation,
            enforce_eager=env.optional_flag("VLLM_ENFORCE_EAGER"),
            engine_args=tuple(env.json_object("VLLM_ENGINE_ARGS").items()),
            lora_modules=_lora_modules(env),
            speculation=SpeculationSettings.from_env(env),
            engines_per_gpu=_engines_per_gpu(env),
            engine_start_s=env.number("ENGINE_START_S", 3600.0, 0.0, 86400.0) or 3600.0,
            engine_hang_s=env.number("ENGINE_HANG_S", 60.0, 0.0, 86400.0) or 60.0,
            tensor_parallel_size=env.integer("TENSOR_PARALLEL_SIZE", 1, 1) or 1,
            trust_remote_code=env.flag("TRUST_REMOTE_CODE", False),
            log_level=env.choice("LOG_LEVEL", _LOG_LEVELS, "INFO"),
            log_format=env.choice("LOG_FORMAT", {"text": "text", "json": "json"}, "text"),
            vllm_log_level=env.choice("VLLM_LOG_LEVEL", _LOG_LEVELS, "WARNING"),
            system_prompt=env.text("SYSTEM_PROMPT") or DEFAULT_SYSTEM_PROMPT,
            warmup=WarmupSettings.from_env(env),
        )


def served_name(env: Environment) -> str:
    """The model's public name: ``SERVED_MODEL_NAME``, else the last part of ``MODEL_ID`` (or of ``MODEL_DIR``)."""
    explicit = env.text("SERVED_MODEL_NAME")
    if explicit:
        return explicit
    source = env.text("MODEL_ID") or env.text("MODEL_DIR") or _DEFAULT_MODEL_ID
    return source.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]


def _lora_modules(env: Environment) -> tuple[tuple[str, str], ...]:
    modules = env.json_object("LORA_MODULES")
    if not all(name.strip() and isinstance(folder, str) and folder.strip() for name, folder in modules.items()):
        raise SettingsError("LORA_MODULES", json.dumps(modules), "a JSON object: adapter's name to its folder")
    return tuple(modules.items())


def _engines_per_gpu(env: Environment) -> int | None:
    if (env.text("ENGINES_PER_GPU") or "auto").lower() == "auto":
        return None
    return env.integer("ENGINES_PER_GPU", None, 1, 64, "auto or a number from 1 to 64")


def main(arguments: list[str]) -> int:
    """``--check``: validate the environment; 0 when it is fine, 2 with one line on standard error when not."""
    if arguments != ["--check"]:
        print("usage: settings.py --check", file=sys.stderr)
        return 2
    try:
        ModelSettings.from_env(os.environ)
    except SettingsError as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
