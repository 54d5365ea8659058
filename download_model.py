#!/usr/bin/env python3
"""Fetches the model, and the draft model if there is one, before the service starts; at run time nothing is fetched.

    python download_model.py [--model ID] [--revision R] [--dest DIR] [--draft ID] [--draft-optional] [--token T]

Life of a download (``download/folder.py``):

1. A folder whose manifest names this origin, and whose files have the sizes it lists, is done: no network, no writing.
2. Take the lock beside the folder (``<folder>.lock``), then look again.
3. Mark the folder as started. A folder of something else is refused: two models are never mixed.
4. The source (``download/sources.py``) fills the folder; what an earlier run left there is resumed.
5. Check the contents, hash every file, write the manifest; only then is the folder complete.

Standard output carries one line, the main model's folder; everything else goes to standard error.
Exit codes: 0 done, 1 the main model or the command line failed, 2 a required draft failed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from download.console import Redacted, say
from download.errors import DownloadError
from download.folder import obtain
from download.options import Options
from download.sources import prepare_clients


def main(argv: Sequence[str]) -> int:
    """Fetch what the command line and the environment ask for; return the exit code."""
    try:
        options = Options.parse(argv, os.environ)
        prepare_clients()
        # For good: a last traceback goes through it too.
        sys.stderr = cast(TextIO, Redacted(sys.stderr, options.secrets))
        obtain(options.model, token=options.token, verify=options.verify)
    except DownloadError as exc:
        say(str(exc))
        return 1
    try:
        if options.draft is not None:
            obtain(options.draft, token=options.token, verify=options.verify)
    except DownloadError as exc:
        say(f"the draft model failed{', going on without it' if options.draft_optional else ''}: {exc}")
        if not options.draft_optional:
            return 2
    print(options.model.folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("interrupted; the next run resumes")
        sys.exit(130)
