"""Merging: load the base, lay the adapter over it, fold it into the weights, write a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.console import progress
from tools.errors import ToolError, UsageError
from tools.model_folders import check_model, check_output, copy_companions, new_folder, read_config, weight_bytes


@dataclass(frozen=True)
class Merge:
    """What to merge. ``dtype`` is the type of the written weights; ``auto`` keeps the base's."""

    base: Path
    adapter: Path
    out: Path
    dtype: str = "auto"
    force: bool = False


def merge(job: Merge) -> dict[str, Any]:
    """Do it, and return what was done. Raises :class:`ToolError`."""
    check_model(job.base)
    adapter = read_config(job.adapter, "adapter_config.json")
    if not (job.adapter / "adapter_model.safetensors").is_file():
        raise UsageError(f"{job.adapter}: no adapter_model.safetensors in it")
    check_output(job.out, job.force)
    with progress(3, "merging", "step") as bar, new_folder(job.out) as fresh:
        model, merged_weights = _merged(job)
        bar.update(1)
        if job.dtype != "auto":
            model = model.to(_dtype(job.dtype))
        model.save_pretrained(str(fresh), safe_serialization=True)
        bar.update(1)
        # An adapter that was trained with more tokens, or another chat format, brings its own tokenizer.
        companions = copy_companions((job.adapter, job.base), fresh)
        bar.update(1)
    return {
        "out": str(job.out),
        "base": str(job.base),
        "adapter": str(job.adapter),
        "kind": str(adapter.get("peft_type")),
        "merged_weights": merged_weights,
        "dtype": str(model.dtype).removeprefix("torch."),
        "megabytes": weight_bytes(job.out) / 1e6,
        "files_taken_over": companions,
    }


def _merged(job: Merge) -> tuple[Any, int]:
    """Return the merged model and the number of weights that the adapter changed."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    try:
        base = AutoModelForCausalLM.from_pretrained(str(job.base), dtype="auto", local_files_only=True)
        before = {name: value.detach().clone() for name, value in base.named_parameters()}
        adapted = PeftModel.from_pretrained(base, str(job.adapter), local_files_only=True)
        model = adapted.merge_and_unload(safe_merge=True)  # refuses weights that are not finite
    except (ValueError, RuntimeError, KeyError, OSError) as exc:
        raise ToolError(f"{job.adapter} does not fit {job.base}: {_first_line(exc)}") from exc
    changed = sum(not value.equal(before[name]) for name, value in model.named_parameters() if name in before)
    if changed == 0:
        raise ToolError(f"{job.adapter} changes no weight of {job.base}: is it trained, and for this model?")
    return model, changed


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:300]
