"""Programs that need torch, in the environment of theirs, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.conftest import ROOT

PYTHON = ROOT / ".venv-quantize" / "bin" / "python"
PROGRAMS = ROOT / "tests" / "tools" / "programs"


def run_with_torch(*arguments: object, expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENT …`` in .venv-quantize; it must end with the status that is expected."""
    assert PYTHON.is_file(), "make tools-quantize makes the environment .venv-quantize"
    command = [str(PYTHON), *map(str, arguments)]
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # Two threads that wait for each other on a busy machine are many times slower than one, with so small a model.
    environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == expected, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    """What a program printed on its last line."""
    return json.loads(done.stdout.strip().splitlines()[-1])


def shared_file(shared_dir: Any, name: str) -> Any:
    """A file of the shared material; skips where there is none at all."""
    if shared_dir is None:
        pytest.skip("no shared test material: set SHARED_DIR or put `shared` beside the project")
    return shared_dir / name
