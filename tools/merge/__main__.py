"""``python -m tools.merge --base DIR --adapter DIR --out DIR``; in the environment .venv-quantize."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.console import run, say
from tools.merge.merge import Merge, merge
from tools.results import write_json

DTYPES = ("auto", "float16", "bfloat16", "float32")


def main(arguments: Sequence[str]) -> int:
    """Merge and tell what was done."""
    job, json_file = parse(arguments)
    result = merge(job)
    print(f"{result['merged_weights']} weights merged, {result['megabytes']:,.1f} MB, {result['dtype']}: {job.out}")
    if json_file:
        write_json(json_file, result)
        say(f"written: {json_file}")
    return 0


def parse(arguments: Sequence[str]) -> tuple[Merge, Path | None]:
    """Return what to merge and the file for the JSON result."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.merge", description="Put a PEFT adapter into its base model."
    )
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--adapter", type=Path, required=True, help="folder with adapter_config.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for the merged model")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="type of the written weights (auto: the base's)"
    )
    parser.add_argument("--force", action="store_true", help="replace a folder that is not empty")
    parser.add_argument("--json", dest="json_file", type=Path, help="file for the result as JSON")
    options = vars(parser.parse_args(arguments))
    json_file: Path | None = options.pop("json_file")
    return Merge(**options), json_file


if __name__ == "__main__":
    sys.exit(run(main))
