"""The real engines need nothing of Triton; what imports its module by the way gets the fake."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator

import pytest

if "triton_python_backend_utils" not in sys.modules:
    sys.modules["triton_python_backend_utils"] = importlib.import_module("tests.fakes.triton_python_backend_utils")


@pytest.fixture(scope="module")
def garbage_stays_here() -> Iterator[None]:
    """What vLLM leaves unclosed is warned about within its own module, not in the middle of another one's test."""
    yield
    gc.collect()
