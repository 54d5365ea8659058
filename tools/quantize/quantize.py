"""Quantizing: load, calibrate, compress, write a model folder that vLLM recognises by its config.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.console import say
from tools.errors import ToolError, UsageError
from tools.model_folders import check_model, check_output, copy_companions, new_folder, weight_bytes
from tools.quantize.calibration import calibration_set
from tools.quantize.options import Quantization
from tools.quantize.recipes import recipe


def quantize(job: Quantization) -> dict[str, Any]:
    """Do it, and return what was done. Raises :class:`ToolError`."""
    config = check_model(job.model)
    if "quantization_config" in config:
        raise UsageError(f"{job.model}: is quantized already")
    check_output(job.out, job.force)
    began = time.monotonic()
    with new_folder(job.out) as fresh:
        model, tokenizer = _loaded(job)
        texts = None if job.method == "fp8" else calibration_set(job, tokenizer)
        _compress(job, model, tokenizer, texts)
        say("writing")
        model.save_pretrained(str(fresh), save_compressed=True)
        companions = copy_companions((job.model,), fresh)
    return {
        "out": str(job.out),
        "model": str(job.model),
        "method": job.method,
        "calibration_samples": 0 if texts is None else len(texts),
        "megabytes_before": weight_bytes(job.model) / 1e6,
        "megabytes": weight_bytes(job.out) / 1e6,
        "seconds": round(time.monotonic() - began, 1),
        "files_taken_over": companions,
    }


def _loaded(job: Quantization) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    say(f"loading {job.model}")
    try:
        model = AutoModelForCausalLM.from_pretrained(str(job.model), dtype="auto", local_files_only=True)
        return model, AutoTokenizer.from_pretrained(str(job.model), local_files_only=True)
    except (ValueError, RuntimeError, KeyError, OSError) as exc:
        raise ToolError(f"{job.model} cannot be loaded: {str(exc).strip().splitlines()[0][:300]}") from exc


def _compress(job: Quantization, model: Any, tokenizer: Any, texts: Any) -> None:
    """Quantize the model in place; llm-compressor shows its own progress bars."""
    from llmcompressor import oneshot

    kwargs: dict[str, Any] = {}
    if texts is not None:
        kwargs = {"dataset": texts, "num_calibration_samples": len(texts), "max_seq_length": job.max_length}
    say(f"quantizing by {job.method}" + (f" with {len(texts)} calibration texts" if texts is not None else ""))
    with _memory_that_cannot_be_pinned():
        oneshot(model=model, processor=tokenizer, recipe=recipe(job, _widths(model, job)), **kwargs)


def _widths(model: Any, job: Quantization) -> list[int]:
    from torch import nn

    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    return [int(layer.in_features) for name, layer in layers if name not in job.ignore]


@contextmanager
def _memory_that_cannot_be_pinned() -> Iterator[None]:
    """Without a GPU, leave out the pinning of memory: AWQ asks for it always, and torch's CPU build refuses."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        yield
        return
    pin = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda self, batch_index, input_names=None: None
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = pin
