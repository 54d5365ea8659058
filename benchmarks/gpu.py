"""`python -m benchmarks gpu`: targets P1 to P4 and P8 to P10, on NVIDIA GPUs, with random weights (`shapes.py`)."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import shapes, workload
from benchmarks.cpu import Server
from benchmarks.peers import ApiServerPeer, OfflinePeer, ProjectPeer, UrlPeer, default_model
from benchmarks.results import Figure, Report, ratio
from benchmarks.side_by_side import Plan, batches, rates

TOKENS = 64
# The service's own choices for a GPU (vllm_options.py); "tuned" peers get the same.
ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": 1040,
    "max_num_batched_tokens": 16384,
    "max_cudagraph_capture_size": 1040,
}
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
OURS = "this service"


def run(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """Measure all; P10 only where there are two GPUs."""
    small = _shape("0.5B")
    batch(report, plan, small, others)
    clients(report, small)
    one_client(report, small)
    large_model(report, plan, _shape("4B"))
    if len(report.machine["gpus"]) > 1:
        two_gpus(report, plan, small)


def batch(report: Report, plan: Plan, model: Path, others: Sequence[Server]) -> None:
    """P1 and P2: a batch of 1,024, once of exact length and without penalties, once with the service's defaults."""
    for plain, unit in ((True, "tokens/s"), (False, "prompts/s")):
        what = f"batch of 1,024, 0.5 B, {'no penalties' if plain else 'default penalties and stop tokens'}"
        seconds = batches(peers(model, others if plain else ()), _maker(plain), plan)
        amount = 1024 * (TOKENS if plain else 1)
        figures = {name: report.add(what, name, unit, values) for name, values in rates(seconds, amount).items()}
        for name, target, least in (("vLLM offline, stock", "P1", 3.5), ("vLLM's API server", "P2", 4.5)):
            _compare(report, target, what, figures.get(OURS), figures.get(name), least)


def _maker(plain: bool) -> Callable[[int], workload.Workload]:
    return lambda number: workload.make(1024, TOKENS, number, plain)


def clients(report: Report, model: Path) -> None:
    """P3: 256 clients with one prompt each at a time."""
    found: dict[str, Figure] = {}
    starts: list[Callable[[], Any]] = [lambda: ProjectPeer(OURS, settings(model)), lambda: api_server(model)]
    for start in starts:
        with start() as peer:
            peer.clients_s(workload.make(512, TOKENS, 0), 256)
            each = [2048 * TOKENS / peer.clients_s(workload.make(2048, TOKENS, number), 256)[0] for number in (1, 2, 3)]
        found[peer.name] = report.add("256 clients with single prompts, 0.5 B", peer.name, "tokens/s", each)
    _compare(report, "P3", "256 clients", found.get(OURS), found.get("vLLM's API server"), 1.5)


def one_client(report: Report, model: Path) -> None:
    """P4: what one client waits longer than for the engine alone; P8: the start."""
    with OfflinePeer("vLLM offline, tuned alike", {"model": str(model), **ENGINE}, True, QUIET) as offline:
        alone = _singles(offline.batch_s)
    started = []
    for turn in range(2):
        with ProjectPeer(OURS, settings(model)) as ours:
            started.append(ours.start_s)
            if turn:
                served = _singles(ours.batch_s)
    report.add("start to ready, four engines, 0.5 B, warm cache", OURS, "s", started[1:], higher=False)
    report.judge("P8", "start with a warm cache", "≤ 75 s", f"{started[1]:.0f} s", started[1] <= 75)
    first = report.add("one client, one prompt", offline.name, "ms", alone, higher=False)
    second = report.add("one client, one prompt", OURS, "ms", served, higher=False)
    added = second.median - first.median
    report.judge("P4", "latency added for one client", "≤ 2 ms", f"{added:.1f} ms", added <= 2)


def large_model(report: Report, plan: Plan, model: Path) -> None:
    """P9: a model whose engine is the limit."""

    def tuned() -> OfflinePeer:
        return OfflinePeer("vLLM offline, tuned alike", {"model": str(model), **ENGINE}, True, QUIET)

    seconds = batches(
        [lambda: ProjectPeer(OURS, settings(model)), tuned], lambda n: workload.make(1024, TOKENS, n), plan
    )
    figures = {
        name: report.add("batch of 1,024, 4 B", name, "tokens/s", values)
        for name, values in rates(seconds, 1024 * TOKENS).items()
    }
    _compare(report, "P9", "batch, 4 B", figures.get(OURS), figures.get("vLLM offline, tuned alike"), 1.0)


def two_gpus(report: Report, plan: Plan, model: Path) -> None:
    """P10: the same service on one GPU and on two."""
    starts: list[Callable[[], Any]] = [
        lambda: ProjectPeer("one GPU", settings(model, CUDA_VISIBLE_DEVICES="0")),
        lambda: ProjectPeer("two GPUs", settings(model, CUDA_VISIBLE_DEVICES="0,1")),
    ]
    seconds = batches(starts, lambda number: workload.make(4096, TOKENS, number), plan)
    figures = {
        name: report.add("batch of 4,096, 0.5 B", name, "tokens/s", values)
        for name, values in rates(seconds, 4096 * TOKENS).items()
    }
    _compare(report, "P10", "two GPUs over one", figures.get("two GPUs"), figures.get("one GPU"), 1.8)


def peers(model: Path, others: Sequence[Server]) -> list[Callable[[], Any]]:
    """Functions that make the peers of P1 and P2."""
    stock = {"model": str(model), "max_model_len": ENGINE["max_model_len"]}
    found: list[Callable[[], Any]] = [
        lambda: ProjectPeer(OURS, settings(model)),
        lambda: OfflinePeer("vLLM offline, stock", stock, False, QUIET),
        lambda: OfflinePeer("vLLM offline, tuned alike", {"model": str(model), **ENGINE}, True, QUIET),
        lambda: api_server(model),
    ]
    return found + [lambda server=server: UrlPeer(server.url, server.url, server.model) for server in others]


def api_server(model: Path) -> ApiServerPeer:
    """With the engine settings of the tuned ones."""
    arguments = [f"--model={model}", *(f"--{name.replace('_', '-')}={value}" for name, value in ENGINE.items())]
    return ApiServerPeer("vLLM's API server", arguments, QUIET)


def settings(model: Path, **more: str) -> dict[str, str]:
    """The service's, with the length that the peers have too."""
    return {"MODEL_DIR": str(model), "MAX_MODEL_LEN": str(ENGINE["max_model_len"]), "LOG_LEVEL": "WARNING", **more}


def _shape(shape: str) -> Path:
    folder = Path(os.environ.get("BENCH_MODELS") or Path(tempfile.gettempdir()) / "benchmark-models")
    return shapes.make(shape, folder / shape, default_model())


def _singles(batch_s: Callable[[workload.Workload], float], count: int = 100) -> list[float]:
    """Milliseconds of single prompts with 16 tokens, one after the other."""
    for number in range(10):
        batch_s(workload.make(1, 16, number))
    each = [1000 * batch_s(workload.make(1, 16, 100 + number)) for number in range(count)]
    return [statistics.median(each[start::4]) for start in range(4)]


def _compare(report: Report, target: str, what: str, ours: Figure | None, other: Figure | None, least: float) -> None:
    if ours is not None and other is not None:
        found = ratio(ours, other)
        report.judge(target, f"{what}: over {other.peer}", f"≥ {least:g}", f"{found:.2f}", found >= least)
