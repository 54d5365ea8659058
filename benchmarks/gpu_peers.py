"""Who is measured on a GPU, all with the same model, length of context and, where they are "tuned", engine settings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import nvidia_backend
from benchmarks.errors import PeerFailed
from benchmarks.peers import ApiServerPeer, InProcessPeer, OfflinePeer, ProjectPeer, TokenIdsPeer, default_model
from benchmarks.workload import ROOT
from runtime.mps_command import mps_problem

# The service's own choices for a GPU (vllm_options.py); "tuned" peers get the same.
ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 1040,
    "max_num_batched_tokens": 16384,
    "max_cudagraph_capture_size": 1040,
}
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
OURS, WITHOUT_MPS = "this service", "this service, NVIDIA_MPS=0"
STOCK, TUNED, IN_PROCESS = "vLLM offline, stock", "vLLM offline, tuned alike", "AsyncLLM in process, tuned alike"
API_SERVER = "vLLM's API server, tuned alike"
NVIDIA = nvidia_backend.NvidiaBackendPeer.name

Makers = list[Callable[[], Any]]


def model_of(shape: str) -> Path:
    """The folder of a model of this shape, made if need be."""
    folder = Path(os.environ.get("BENCH_MODELS") or Path(tempfile.gettempdir()) / "benchmark-models") / shape
    # In a process of its own: this one must not keep a GPU's memory.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.shapes", shape, str(folder), str(default_model())], cwd=ROOT, check=False
    )
    if done.returncode:
        raise PeerFailed(f"no model of shape {shape} could be made in {folder}")
    return folder


def visible_gpus() -> list[str]:
    """As ``CUDA_VISIBLE_DEVICES`` calls them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        return named.split(",")
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def service(model: Path, name: str = OURS, **more: str) -> ProjectPeer:
    """The service with its defaults, but for the length that the peers have too."""
    settings = {"MODEL_DIR": str(model), "MAX_MODEL_LEN": str(ENGINE["max_model_len"]), "LOG_LEVEL": "WARNING"}
    return ProjectPeer(name, {**settings, **more})


def ways() -> list[tuple[str, dict[str, str]]]:
    """How the service is measured, by name: with which settings beside its defaults. Without MPS, where it has it."""
    return [(OURS, {}), *([] if mps_problem(os.environ) else [(WITHOUT_MPS, {"NVIDIA_MPS": "0"})])]


def services(model: Path) -> Makers:
    """The service in all these ways."""
    return [partial(service, model, name, **more) for name, more in ways()]


def stock(model: Path) -> OfflinePeer:
    """``LLM.generate`` as vLLM's documentation shows it."""
    return OfflinePeer(STOCK, {"model": str(model), "max_model_len": ENGINE["max_model_len"]}, QUIET)


def tuned(model: Path) -> OfflinePeer:
    """``LLM.generate`` fed with token ids."""
    return TokenIdsPeer(TUNED, {"model": str(model), **ENGINE}, QUIET)


def in_process(model: Path) -> InProcessPeer:
    """``AsyncLLM`` without anything around it."""
    return InProcessPeer(IN_PROCESS, {"model": str(model), **ENGINE}, QUIET)


def api_server(model: Path) -> ApiServerPeer:
    """vLLM's own server."""
    arguments = [f"--model={model}", *(f"--{name.replace('_', '-')}={value}" for name, value in ENGINE.items())]
    return ApiServerPeer(API_SERVER, arguments, QUIET)


def nvidia_peers(model: Path) -> Makers:
    """NVIDIA's backend, where its sources are named."""
    folder = nvidia_backend.sources()
    if folder is None:
        return []
    return [lambda: nvidia_backend.NvidiaBackendPeer(folder, {"model": str(model), **ENGINE}, QUIET)]


def all_peers(model: Path, others: Sequence[Callable[[], Any]]) -> Makers:
    """Everybody who can be asked for a batch."""
    ours = services(model)
    return [*ours, lambda: stock(model), lambda: tuned(model), lambda: api_server(model), *nvidia_peers(model), *others]
