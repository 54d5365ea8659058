"""``python -m tools.upload FOLDER owner/name``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.console import run, say
from tools.results import write_json
from tools.upload.options import parse
from tools.upload.upload import upload


def main(arguments: Sequence[str]) -> int:
    """Upload and tell what was done."""
    job, json_file = parse(arguments)
    result = upload(job)
    made = " (made)" if result["created"] else ""
    print(f"{result['files']} files, {result['megabytes']:,.1f} MB: {result['model']}{made}, {result['revision']}")
    if json_file:
        write_json(json_file, result)
        say(f"written: {json_file}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
