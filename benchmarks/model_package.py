"""The Triton model's code under a name that Python can import: Triton calls its folder by the model's version, ``1``.

Importing this module makes ``model_repository/llm/1`` importable as ``llm_model``.
"""

from __future__ import annotations

import sys
from types import ModuleType

from benchmarks.workload import ROOT

MODEL_VERSION_DIR = ROOT / "model_repository" / "llm" / "1"

_package = ModuleType("llm_model")
_package.__path__ = [str(MODEL_VERSION_DIR)]
sys.modules.setdefault("llm_model", _package)
