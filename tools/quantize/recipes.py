"""llm-compressor's recipes for the three methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tools.errors import UsageError
from tools.quantize.options import Quantization

GROUP_SIZES = (128, 64, 32)


def group_size(wanted: int, widths: Iterable[int]) -> int:
    """Return how many weights share a scale: a divisor of every layer's width. Raises :class:`UsageError`."""
    found = sorted(set(widths))
    fitting = [size for size in ([wanted] if wanted else GROUP_SIZES) if all(width % size == 0 for width in found)]
    if not fitting:
        tried = f"--group-size {wanted}" if wanted else f"none of the group sizes {GROUP_SIZES}"
        raise UsageError(f"{tried} divides all widths of the model's layers: {found}")
    return fitting[0]


def recipe(job: Quantization, widths: Iterable[int]) -> list[Any]:
    """Return the modifiers of the method."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    ignore = list(job.ignore)
    if job.method == "fp8":
        return [QuantizationModifier(targets=["Linear"], scheme="FP8_DYNAMIC", ignore=ignore)]
    groups = _four_bits(group_size(job.group_size, widths), symmetric=job.method == "gptq")
    if job.method == "gptq":
        return [GPTQModifier(config_groups=groups, ignore=ignore)]
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=ignore)]


def _four_bits(size: int, symmetric: bool) -> dict[str, Any]:
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": size, "symmetric": symmetric}
    return {"group_0": {"targets": ["Linear"], "weights": weights}}
