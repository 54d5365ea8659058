"""Gives back what it gets, and tells what the stub's Python is like."""

from __future__ import annotations

import _ssl  # fails to load when another libpython of the same version was found first
import json
import os
import sys
from typing import Any

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text_input")
            facts = {
                "prefix": sys.prefix,
                "version": list(sys.version_info[:2]),
                "numpy": numpy.__file__,
                "ssl": _ssl.OPENSSL_VERSION,
                "environment": dict(os.environ),
            }
            outputs = [
                pb_utils.Tensor("text_output", text.as_numpy()),
                pb_utils.Tensor("facts", numpy.array([json.dumps(facts)], dtype=object)),
            ]
            request.get_response_sender().send(
                pb_utils.InferenceResponse(outputs), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )
