"""The real engines need nothing of Triton; what imports its module by the way gets the fake."""

from __future__ import annotations

import importlib
import sys

if "triton_python_backend_utils" not in sys.modules:
    sys.modules["triton_python_backend_utils"] = importlib.import_module("tests.fakes.triton_python_backend_utils")
