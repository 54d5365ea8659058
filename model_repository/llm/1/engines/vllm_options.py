"""What vLLM is asked for: engine arguments from settings, without importing vLLM.

Each default that differs from vLLM's own is here with its reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import MutableMapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ..adapters import Adapters
from ..logs import logger
from ..settings import ModelSettings
from .cpu_limit import usable_cpus
from .failure_log import configure_logging
from .gpus import metax_present
from .places import KEPT_AT_MOST
from .speculation import speculative_config

Device = Literal["cpu", "gpu"]

# AsyncLLM's own defaults (128 and 2048 in 0.32) are those of an interactive server; batches of questions want more. Of
# the sequences the last 16 are for single prompts (places.py), so that a batch of 1,024 still runs at once.
MANY_SEQS = 1024 + KEPT_AT_MOST
_MAX_NUM_SEQS = {"cpu": 256 + KEPT_AT_MOST, "gpu": MANY_SEQS}
_MAX_NUM_BATCHED_TOKENS = {"cpu": 4096, "gpu": 16384}
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM has room for
_MAX_LORAS = 8  # in one step of a GPU; memory is set aside for each
_DEVICES = Path("/dev")
_FEW_CPUS = 2
# Those with which vllm_scheduler.py has been compared, as vLLM builds them; a vendor's build may have other code.
_COMPARED_WITH_OUR_SCHEDULER = (
    *("0.24.0", "0.25.0", "0.25.1", "0.26.0", "0.27.0", "0.27.1"),
    *("0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0"),
)
_BF16_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def prepare_environment(
    settings: ModelSettings,
    environ: MutableMapping[str, str] = os.environ,
    device_root: Path = _DEVICES,
    cpus: float | None = None,
) -> None:
    """Set what vLLM and transformers read from the environment at import; what the user set stays.

    ``cpus`` is how many cores' time may be used, which is found out if it is not said.
    """
    if cpus is None:
        cpus = usable_cpus()
    defaults = {
        "VLLM_LOGGING_LEVEL": settings.vllm_log_level,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",  # nothing is fetched at run time
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's own choice on a CPU is a share of all memory
        # oneDNN keeps a compiled kernel for every number of tokens in a step. Its own 1,024 made an engine 440 MB
        # larger in ten thousand mixed requests on a CPU; with 128 its memory stays as it is, at the same speed.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
        # Said either way, else a forked engine switches the batch tokenizer to one core. With two cores, which gateway
        # and Triton want too, its threads made a prompt of a batch a fifth dearer for the stub, and no sooner ready.
        "TOKENIZERS_PARALLELISM": "true" if cpus > _FEW_CPUS else "false",
    }
    if () < installed_release() < (0, 11):
        defaults["VLLM_USE_V1"] = "1"  # off the main thread 0.10 would choose the old engine
    if not metax_present(device_root):
        defaults["VLLM_PLUGINS"] = ""  # none: an image may carry a plugin for a GPU that this machine has not
    if not environ.get("CUDA_VISIBLE_DEVICES", "all").strip():
        del environ["CUDA_VISIBLE_DEVICES"]  # blank means unset; to CUDA it would mean no device
    for name, value in defaults.items():
        environ.setdefault(name, value)
    configure_logging(settings.vllm_log_level, environ)


def engine_options(settings: ModelSettings, device: Device, max_model_len: int) -> dict[str, Any]:
    """Engine arguments by vLLM's names. Those of ``VLLM_ENGINE_ARGS`` win over all others.

    Raises :class:`StartupError` for adapters or a draft model that cannot be had.
    """
    options: dict[str, Any] = {
        "model": settings.model_dir,
        "served_model_name": settings.served_name,
        "dtype": choose_dtype(settings.dtype, device),
        "max_model_len": max_model_len,
        "max_num_seqs": settings.max_num_seqs or _MAX_NUM_SEQS[device],
        "max_num_batched_tokens": settings.max_num_batched_tokens or _batched_tokens(settings, device, max_model_len),
        "tensor_parallel_size": settings.tensor_parallel_size,
        "trust_remote_code": settings.trust_remote_code,
        "enable_prefix_caching": True if settings.enable_prefix_caching is None else settings.enable_prefix_caching,
        "scheduling_policy": _scheduling_policy(installed_release()),
        "disable_log_stats": True,  # our own stat logger takes the figures instead
        # Compiling takes a CPU minutes and gains little on small models; a GPU captures graphs.
        "enforce_eager": device == "cpu" if settings.enforce_eager is None else settings.enforce_eager,
    }
    chosen = {
        "gpu_memory_utilization": _memory_share(settings, device),
        "enable_chunked_prefill": settings.enable_chunked_prefill,
        "quantization": settings.quantization,
        "load_format": "auto" if settings.load_format == "awq" else settings.load_format,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "compilation_config": _compilation_config(settings.compilation_config),
        "speculative_config": speculative_config(settings.speculation, installed_release()),
        **_lora_options(Adapters.load(settings.lora_modules), device),
    }
    if settings.load_format == "awq":
        logger.warning("VLLM_LOAD_FORMAT=awq is no load format; auto is used, which finds AWQ weights by itself")
    options.update({name: value for name, value in chosen.items() if value is not None})
    options.update(settings.engine_args)
    return options


def _batched_tokens(settings: ModelSettings, device: Device, max_model_len: int) -> int:
    """A prompt that is not computed in parts has to fit; not every CPU computes them so."""
    usual = _MAX_NUM_BATCHED_TOKENS[device]
    return max(usual, max_model_len) if device == "cpu" or settings.enable_chunked_prefill is False else usual


def _scheduling_policy(release: tuple[int, ...]) -> str:
    """By priority, so that single prompts go before the waiting rows of a batch.

    Before 0.12 vLLM's queue cannot order two requests of one moment, as the samples of one prompt are: its engine dies.
    """
    return "fcfs" if () < release < (0, 12) else "priority"


def _lora_options(adapters: Adapters, device: Device) -> dict[str, Any]:
    if not len(adapters):
        return {}
    # A rank beyond vLLM's largest is passed as it is: vLLM then says what it has.
    rank = next((rank for rank in _LORA_RANKS if rank >= adapters.max_rank), adapters.max_rank)
    places, kept = min(len(adapters), _MAX_LORAS), len(adapters)
    if device == "cpu":
        # A row without an adapter has the place -1, which vLLM's kernels for GPUs skip and its operations for CPUs
        # (vllm/lora/ops/torch_ops, as of 0.32) take for the last place: in a step with others such a row got that
        # adapter. Places are filled from the first on, so with one more than adapters the last stays all zeros.
        places = kept = len(adapters) + 1
    return {"enable_lora": True, "max_loras": places, "max_cpu_loras": kept, "max_lora_rank": rank}


def _memory_share(settings: ModelSettings, device: Device) -> float | None:
    """The share of the device's memory that each engine may use; on a GPU the plan says it."""
    if settings.gpu_memory_utilization is not None:
        return settings.gpu_memory_utilization / (settings.engines_per_gpu or 1)
    # vLLM's own 0.92 counts all of a CPU's memory, which other programs use too; the KV cache has a size of its own.
    return 0.3 if device == "cpu" else None


def choose_dtype(dtype: str, device: Device, cpu_flags: set[str] | None = None) -> str:
    """``auto`` on a CPU without bf16 instructions is float32: measured five times faster there than emulated bf16.

    And before 0.18, whose engine dies of the first prompt with a structure: a CPU's logits had to be float32 for that.
    """
    if dtype != "auto" or device != "cpu":
        return dtype
    flags = _cpu_flags() if cpu_flags is None else cpu_flags
    return "auto" if flags & _BF16_CPU_FLAGS and not () < installed_release() < (0, 18) else "float32"


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _compilation_config(text: str | None) -> Any:
    """vLLM takes an optimization level or a JSON object."""
    return None if text is None else json.loads(text)


def installed_version() -> str:
    """The installed vLLM's version, by whichever distribution it came; empty if there is none."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def installed_release() -> tuple[int, ...]:
    """Major, minor and patch version of the installed vLLM; empty if there is none."""
    return tuple(int(part) for part in re.findall(r"\d+", installed_version())[:3])


def has_our_scheduler() -> bool:
    """Whether ``vllm_scheduler.py`` does what the installed vLLM's scheduler would."""
    return re.sub(r"\+(cu\d+|cpu)$", "", installed_version()) in _COMPARED_WITH_OUR_SCHEDULER


def expected_device(gpu_present: bool) -> Device:
    """What the installed vLLM will compute on: a build for CPUs does not use a GPU."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version("vllm-cpu")
        return "cpu"
    return "gpu" if gpu_present and not installed_version().endswith("+cpu") else "cpu"
