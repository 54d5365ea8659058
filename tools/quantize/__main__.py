"""``python -m tools.quantize --method awq|gptq|fp8 --model DIR --out DIR``; in the environment .venv-quantize."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.console import run, say
from tools.quantize.options import parse
from tools.quantize.quantize import quantize
from tools.results import write_json


def main(arguments: Sequence[str]) -> int:
    """Quantize and tell what was done."""
    job, json_file = parse(arguments)
    result = quantize(job)
    before, after = result["megabytes_before"], result["megabytes"]
    print(f"{job.method}: {before:,.1f} MB → {after:,.1f} MB in {result['seconds']:.0f} s: {job.out}")
    say("on a CPU, serve it with DTYPE=bfloat16: vLLM's kernels for quantized weights have no float32")
    if json_file:
        write_json(json_file, result)
        say(f"written: {json_file}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
