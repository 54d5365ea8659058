"""Loading a causal language model with transformers, and the few calls the decode loop makes of it.

This is the only file that imports transformers' models; the differences between its versions are in :class:`_Version`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..errors import StartupError
from ..logs import logger
from .transformers_memory import batch_limits, check_weights_fit, checkpoint_dtype
from .transformers_queue import BatchLimits
from .transformers_row import EndTokens

# Instructions without which a CPU computes in bfloat16 slowly (names as in /proc/cpuinfo).
_CPU_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class TransformersConfig:
    """What the engine needs to know; all of it checked by whoever read it."""

    model_dir: str
    dtype: Literal["auto", "float16", "bfloat16", "float32"]
    max_model_len: int
    trust_remote_code: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_batch: int = 32


class _Version:
    """What differs between transformers 4.5x (torch 2.6, Python 3.10) and 5.x."""

    _number = tuple(int(part) for part in transformers.__version__.split(".")[:2])

    # from_pretrained's ``torch_dtype`` became ``dtype`` in 4.56; the old name is deprecated since.
    dtype_argument = "dtype" if _number >= (4, 56) else "torch_dtype"

    @classmethod
    def first_cache(cls, module: Any) -> Any:
        """Return what to pass as cache to the first forward pass.

        Version 5 models make the cache that suits their layers. Some of 4.5x still return tuples unless they are
        given a cache object; models with a cache class of their own there are left to make it.
        """
        if cls._number >= (5, 0) or not getattr(module, "_supports_cache_class", True):
            return None
        return transformers.DynamicCache()


class LoadedModel:
    """A model in memory, ready to decode; see :class:`.transformers_decode.DecodingModel` for the shapes."""

    def __init__(self, module: Any, tokenizer: Any, limits: BatchLimits, max_model_len: int) -> None:
        self.vocab_size = int(module.get_output_embeddings().weight.shape[0])
        self.device = torch.device(module.device)
        self.ends = _end_tokens(module, tokenizer)
        self.limits = limits
        self.max_model_len = max_model_len
        self.dtype = str(module.dtype).removeprefix("torch.")
        self._module = module
        self._tokenizer = tokenizer
        accepted = inspect.signature(module.forward).parameters
        self._takes_positions = "position_ids" in accepted  # models with relative positions do not
        # Logits of a whole prompt would be the largest tensor by far; only the last column's are needed.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def forward(self, token_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Run the model over new tokens; returns the last column's logits in float32 and the grown cache."""
        cache = _Version.first_cache(self._module) if cache is None else cache
        extra = {"position_ids": positions} if self._takes_positions else {}
        output = self._module(
            input_ids=token_ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **extra,
            **self._last_only,
        )
        return output.logits[:, -1].float(), output.past_key_values

    def select(self, cache: Any, rows: Tensor) -> Any:
        """Return the cache of these rows; ``reorder_cache`` is the one selection that every kind of cache has."""
        cache.reorder_cache(rows)
        return cache

    def decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        """Return the text of the tokens as it is, without tidied spaces, which would not join in a stream."""
        text = self._tokenizer.decode(
            token_ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return str(text)

    def free_cached_memory(self) -> None:
        """Give memory that a failed batch left reserved back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def load_model(config: TransformersConfig) -> LoadedModel:
    """Load the model folder. Raises :class:`StartupError` with the cause in one line."""
    folder = Path(config.model_dir)
    if not folder.is_dir():  # transformers would take the text for the name of a model on a hub
        raise StartupError(f"the model folder {folder} does not exist")
    common = {"local_files_only": True, "trust_remote_code": config.trust_remote_code}
    device = _device(config.device)
    with _startup_errors(f"read the configuration in {folder}"):
        hf_config = AutoConfig.from_pretrained(folder, **common)
    with _startup_errors(f"load the tokenizer in {folder}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **common)
    dtype = _dtype(config.dtype, checkpoint_dtype(hf_config), device)
    check_weights_fit(folder, hf_config, dtype, device)
    with _startup_errors(f"load the weights in {folder}"):
        module = _load_weights(folder, dtype, common).to(device).eval()
    limits = batch_limits(module.config, dtype, device, config.max_batch, config.max_model_len)
    with _startup_errors(f"decode with {type(module).__name__}"):
        model = LoadedModel(module, tokenizer, limits, config.max_model_len)
        _prove(model)
    logger.info("transformers %s serves %s as %s on %s", transformers.__version__, folder, model.dtype, device)
    return model


@contextlib.contextmanager
def _startup_errors(step: str) -> Iterator[None]:
    """Turn whatever transformers, torch or safetensors raise while loading into one line; the one border for them."""
    try:
        yield
    except StartupError:
        raise
    except Exception as exc:
        cause = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise StartupError(f"transformers {transformers.__version__} cannot {step}: {cause[:400]}") from exc


def _load_weights(folder: Path, dtype: torch.dtype, common: dict[str, Any]) -> Any:
    """Return the model with its weights, safetensors only; pickled ones are refused."""
    transformers.utils.logging.disable_progress_bar()
    module, report = AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, output_loading_info=True, **{_Version.dtype_argument: dtype}, **common
    )
    if report["missing_keys"]:  # transformers would serve random numbers in their place
        missing = sorted(report["missing_keys"])
        raise StartupError(f"the weights in {folder} lack {len(missing)} tensors, {missing[0]} among them")
    return module


def _device(wanted: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise StartupError("device cuda was asked for, torch finds none")
    return torch.device("cuda" if wanted != "cpu" and has_cuda else "cpu")


def _dtype(wanted: str, stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the type to compute in. ``auto`` is the checkpoint's where the device is quick with it.

    CPUs are slow with float16. With bfloat16, one that has no instructions for it made a third of the tokens/s of
    float32 in a batch of 32 (``course-qa``, AVX2, two cores: 900 against 2,600), and a sixth more with one row.
    """
    if wanted != "auto":
        return getattr(torch, wanted)
    stored = stored or torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if stored == torch.bfloat16 and _cpu_flags() & _CPU_BFLOAT16 else torch.float32
    has_bfloat16 = torch.cuda.is_bf16_supported()
    return torch.float16 if stored == torch.float16 or not has_bfloat16 else torch.bfloat16


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "").split())


def _end_tokens(module: Any, tokenizer: Any) -> EndTokens:
    named = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    named = getattr(module.config, "eos_token_id", None) if named is None else named
    ids = {named} if isinstance(named, int) else set(named or ())
    primary = tokenizer.eos_token_id
    return EndTokens(primary=primary, others=frozenset(ids - {primary}))


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _prove(model: LoadedModel) -> None:
    """Decode two tokens, so that a model this engine cannot drive is found out at the start."""
    ones = torch.ones(2, 2, dtype=torch.int64, device=model.device)
    _, cache = model.forward(ones[:, :1], ones[:, :1], ones[:, :1] - 1, None)
    cache = model.select(cache, torch.zeros_like(ones[0, :1]))
    model.forward(ones[:1, :1], ones[:1], ones[:1, :1], cache)
