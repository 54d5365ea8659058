"""The gateway must start where no model library is installed, and must not load one where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

_IMPORT_ALL = """
import importlib, importlib.abc, pkgutil, sys

BLOCKED = {"torch", "vllm", "transformers", "modelscope", "huggingface_hub"}

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
try:
    import torch
except ImportError:
    pass
else:
    sys.exit("the block does not block")

import gateway
names = [module.name for module in pkgutil.walk_packages(gateway.__path__, "gateway.")]
for name in names:
    if name != "gateway.__main__":
        importlib.import_module(name)
from gateway.app import create_app
from gateway.middleware.draining import Drain
from gateway.settings import GatewaySettings
create_app(GatewaySettings.from_env({}), Drain())
print(len(names))
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_whole_gateway_imports_without_any_model_library() -> None:
    done = _run(_IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_checking_the_settings_needs_the_standard_library_only() -> None:
    foreign = ("fastapi", "pydantic", "grpc", "uvicorn", "orjson", "tritonclient", "numpy")
    done = _run(
        "import os, sys; os.environ.clear(); from gateway.__main__ import main; code = main(['--check']);"
        f"loaded = [name for name in {foreign!r} if name in sys.modules]; sys.exit(code or ', '.join(loaded) or 0)"
    )
    assert (done.returncode, done.stderr) == (0, "")
