"""Settings of the engines against the defaults, for a size of model. What the defaults are is read off here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks import gpu_peers
from benchmarks.gpu_jobs import shape_jobs
from benchmarks.peers import Server
from benchmarks.results import Report
from benchmarks.side_by_side import Part, Plan, measure, report_all

SHAPES = ("0.5B", "1.7B", "4B")
# As vLLM chooses them up to the service's largest; and some for steps with prefills.
_GRAPHS = [1, 2, 4, *range(8, 256, 8), *range(256, gpu_peers.ENGINE["max_cudagraph_capture_size"] + 1, 16)]
_LARGER_GRAPHS = [*range(1152, 2049, 128), 2304, 2560, 3072, 3584, 4096, 5120, 6144, 8192]


def _arguments(**values: object) -> Mapping[str, str]:
    return {"VLLM_ENGINE_ARGS": json.dumps(values)}


# Each by itself, beside the defaults.
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "without NVIDIA's MPS": {"NVIDIA_MPS": "0"},
    "graphs to 512": _arguments(max_cudagraph_capture_size=512),
    "graphs to 8,192": _arguments(cudagraph_capture_sizes=[*_GRAPHS, *_LARGER_GRAPHS]),
    "560 sequences an engine": {"VLLM_MAX_NUM_SEQS": "560"},
    "8,192 batched tokens": {"VLLM_MAX_NUM_BATCHED_TOKENS": "8192"},
    "32,768 batched tokens": {"VLLM_MAX_NUM_BATCHED_TOKENS": "32768"},
    "no asynchronous scheduling": _arguments(async_scheduling=False),
    "fp8 KV cache": {"VLLM_KV_CACHE_DTYPE": "fp8"},
    "blocks of 64": _arguments(block_size=64),
    "no prefix caching": {"ENABLE_PREFIX_CACHING": "0"},
    "vLLM's first model runner": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
}


def variants(shape: str, report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """All of them, each started as often as the plan says."""
    del others
    model = gpu_peers.model_of(shape)
    peers: list[Callable[[], Any]] = [lambda: gpu_peers.service(model)]
    peers += [partial(gpu_peers.service, model, name, **settings) for name, settings in VARIANTS.items()]
    jobs = shape_jobs(shape)
    report_all(report, jobs, measure(peers, jobs, plan))


PARTS: dict[str, Part] = {f"variants-{shape}": partial(variants, shape) for shape in SHAPES}
