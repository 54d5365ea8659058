"""NVIDIA's vLLM backend on the Triton that the service uses too: a peer where its sources are at hand.

``NVIDIA_VLLM_BACKEND`` names the ``src`` folder of https://github.com/triton-inference-server/vllm_backend. A request
holds one prompt, whose chat template the client has applied; that is not counted.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.http_client import run_all
from benchmarks.offline import render
from benchmarks.peers import Program, Started, free_ports
from benchmarks.workload import Workload
from runtime.interpreter import Interpreter
from runtime.settings import RuntimeSettings
from runtime.triton_command import triton_environment
from runtime.triton_runtime import obtain

VARIABLE = "NVIDIA_VLLM_BACKEND"
MODEL = "served"
# Put before the backend's own first line. Triton starts Python with ASCII for text files, and torch reads its own as
# UTF-8. The backend of January 2026 is of vLLM 0.13's time; what it imports has since moved or, for metrics, gone.
_BEFORE_IT = """
import locale, sys
locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
import vllm.inputs, vllm.v1.metrics.loggers
sys.modules.setdefault("vllm.inputs.data", vllm.inputs)
if not hasattr(vllm.v1.metrics.loggers, "build_1_2_5_buckets"):
    vllm.v1.metrics.loggers.build_1_2_5_buckets = lambda most: [1, 10, 100, 1000]
"""
_CONFIG = 'backend: "vllm"\ninstance_group [{ count: 1, kind: KIND_MODEL }]\n'


def sources(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of the backend, where one is named."""
    named = environ.get(VARIABLE)
    return Path(named).absolute() if named else None


class NvidiaBackendPeer(Started):
    """As many requests at once as there are questions, over Triton's HTTP."""

    name = "NVIDIA's vLLM backend"

    def __init__(self, backend: Path, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._backend = backend
        self._options = options
        self._environ = environ
        self._tokenizer: Any = None

    def __enter__(self) -> NvidiaBackendPeer:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(self._options["model"])
        self._folder = Path(tempfile.mkdtemp(prefix="benchmark-triton-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def _start(self) -> None:
        settings = RuntimeSettings.from_env(os.environ)
        python = Interpreter.running()
        runtime = obtain(settings, os.environ, python)
        self._lay_out(runtime.backend_dir)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = [str(runtime.server), f"--model-repository={self._folder}/models", f"--http-port={port}"]
        command += [f"--backend-directory={self._folder}/backends", "--allow-grpc=false", "--allow-metrics=false"]
        self._program = Program(command, triton_environment({**os.environ, **self._environ}, settings, runtime, python))
        self._wait_until_up(f"{self.url}/v2/health/ready")

    def _lay_out(self, backends: Path) -> None:
        # Copies: Triton refuses a backend whose files are elsewhere.
        shutil.copytree(backends / "python", self._folder / "backends" / "python")
        shutil.copytree(self._backend, self._folder / "backends" / "vllm")
        model = self._folder / "backends" / "vllm" / "model.py"
        model.write_text(_BEFORE_IT + model.read_text(encoding="utf-8"), encoding="utf-8")
        version = self._folder / "models" / MODEL / "1"
        version.mkdir(parents=True)
        (version / "model.json").write_text(json.dumps(dict(self._options)))
        (version.parent / "config.pbtxt").write_text(_CONFIG)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        shutil.rmtree(self._folder, ignore_errors=True)

    def batch_s(self, work: Workload) -> float:
        return self.clients_s(work, len(work.questions))[0]

    def clients_s(self, work: Workload, clients: int) -> tuple[float, list[float]]:
        """Seconds for all questions by so many clients with one each, and for every single one."""
        asked = {"sampling_parameters": json.dumps(work.sampling), "exclude_input_in_output": True}
        bodies = [{"text_input": render(self._tokenizer, chat), **asked} for chat in work.chats]
        return run_all(self.url, f"/v2/models/{MODEL}/generate", bodies, clients)
