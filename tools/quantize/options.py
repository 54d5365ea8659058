"""The command line of ``python -m tools.quantize``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.errors import UsageError

METHODS = ("awq", "gptq", "fp8")
DESCRIPTION = """\
Quantize a model folder for vLLM.

  awq    4-bit weights, scaled by the activations of calibration texts (W4A16)
  gptq   4-bit weights, errors evened out by calibration texts (W4A16)
  fp8    8-bit floats for weights and activations; needs no calibration
"""


@dataclass(frozen=True)
class Quantization:
    """What to do. ``group_size`` 0: the largest of 128, 64 and 32 that fits the model."""

    model: Path
    out: Path
    method: str
    calibration: Path | None = None
    samples: int = 256
    max_length: int = 512
    seed: int = 0
    group_size: int = 0
    ignore: tuple[str, ...] = ("lm_head",)
    system_prompt: str = ""
    force: bool = False


def parse(arguments: Sequence[str]) -> tuple[Quantization, Path | None]:
    """Return what to do and the file for the JSON result. Raises :class:`UsageError`."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.quantize", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the quantized model")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--calibration", type=Path, help="question set (.jsonl or .docx); awq and gptq need one")
    parser.add_argument("--samples", type=int, default=256, help="pairs drawn from it (%(default)s)")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a pair, cut beyond (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (%(default)s)")
    parser.add_argument("--group-size", type=int, default=0, help="weights that share a scale (0: 128, 64 or 32)")
    parser.add_argument("--ignore", nargs="*", default=["lm_head"], help="layers left as they are (%(default)s)")
    parser.add_argument("--system-prompt", default="", help="put before each question, as the service does")
    parser.add_argument("--force", action="store_true", help="replace a folder that is not empty")
    parser.add_argument("--json", dest="json_file", type=Path, help="file for the result as JSON")
    options = vars(parser.parse_args(arguments))
    json_file: Path | None = options.pop("json_file")
    options["ignore"] = tuple(options["ignore"])
    return checked(Quantization(**options)), json_file


def checked(job: Quantization) -> Quantization:
    """Return the job if it makes sense. Raises :class:`UsageError`."""
    if job.method != "fp8" and job.calibration is None:
        raise UsageError(f"--method {job.method} needs --calibration")
    for name, value, least in (("samples", job.samples, 1), ("max-length", job.max_length, 16)):
        if value < least:
            raise UsageError(f"--{name} {value}: at least {least}")
    if job.group_size < 0:
        raise UsageError(f"--group-size {job.group_size}: 0 (by itself) or a divisor of the model's widths")
    return job
