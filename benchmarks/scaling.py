"""How tokens a second and latency go with the number of engines, GPUs and clients: curves instead of single figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import gpu_peers
from benchmarks.gpu_jobs import TOKENS, batch, questions, shape_jobs, singles
from benchmarks.gpu_peers import OURS
from benchmarks.peers import Server
from benchmarks.results import Report
from benchmarks.side_by_side import Job, Part, Plan, measure, report_all

ENGINE_COUNTS = {"0.5B": (1, 2, 3, 4, 5, 6), "1.7B": (1, 2, 3, 4), "4B": (1, 2, 3)}
CLIENTS = tuple(1 << power for power in range(13))  # 1 to 4,096
_A_GPU = 4096  # prompts
_PAIRS = 2  # prompts that each client asks, so that some wait for nobody else's start


def engines(shape: str, report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """Engines on one GPU for a size of model, with and without MPS. What ``auto`` chooses is read off here."""
    del others
    model = gpu_peers.model_of(shape)
    jobs = shape_jobs(shape)
    for name, more in gpu_peers.ways():
        found: dict[str, dict[float, list[float]]] = {job.what: {} for job in jobs}
        for count in ENGINE_COUNTS[shape]:
            peer = partial(gpu_peers.service, model, name, ENGINES_PER_GPU=str(count), **more)
            for what, by_peer in measure([peer], jobs, Plan(1, plan.repeats)).items():
                if name in by_peer:
                    found[what][count] = by_peer[name]
        for job in jobs:
            report.draw(job.what, name, "engines on one GPU", job.unit, found[job.what])


class _ForEachGpu(Job):
    """A batch of so many questions for each GPU; how many those are is the peer's name."""

    def value(self, peer: Any, number: int) -> float:
        work = questions(_A_GPU * int(peer.name))(number)
        return len(work.questions) * self.per_prompt / float(peer.batch_s(work))


def gpus(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """P10: the same service on one GPU, on two, and on as many as there are. Once more with a batch that grows."""
    del others
    model = gpu_peers.model_of("0.5B")
    visible = gpu_peers.visible_gpus()
    counts = [count for count in (1, 2, 4, 8) if count <= len(visible)]
    same = batch("batch of 4,096, 0.5 B", _A_GPU)
    growing = _ForEachGpu("batch of 4,096 for each GPU, 0.5 B", same.unit, same.per_prompt, same.make)
    largest = str(_A_GPU * max(counts, default=1))
    limits = {"MAX_BATCH_PROMPTS": largest, "MAX_QUEUE": largest}
    peers = [
        partial(gpu_peers.service, model, str(count), CUDA_VISIBLE_DEVICES=",".join(visible[:count]), **limits)
        for count in counts
    ]
    found = measure(peers, [same, growing], plan)
    for job in (same, growing):
        curve = {float(count): found[job.what][str(count)] for count in counts if str(count) in found[job.what]}
        report.draw(job.what, OURS, "GPUs", job.unit, curve)
    one, two = (found[same.what].get(name) for name in ("1", "2"))
    if one and two:
        times = statistics.median(two) / statistics.median(one)
        report.judge("P10", f"{same.what}: two GPUs over one", "≥ 1.8", f"{times:.2f}", times >= 1.8)


def tensor_parallel(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """One engine on one GPU and the same model split over two."""
    del others
    visible = gpu_peers.visible_gpus()
    if len(visible) < 2:
        return
    model = gpu_peers.model_of("4B")
    jobs = [
        batch("batch of 1,024, 4 B", 1024),
        singles("one client, 4 B", 16, clients=1),
    ]
    names = {1: "one engine on one GPU", 2: "one engine on two GPUs (tensor parallel)"}
    peers = [partial(_split, model, name, visible[:size]) for size, name in names.items()]
    report_all(report, jobs, measure(peers, jobs, plan))


def _split(model: Any, name: str, visible: Sequence[str]) -> Any:
    size, devices = str(len(visible)), ",".join(visible)
    return gpu_peers.service(model, name, TENSOR_PARALLEL_SIZE=size, ENGINES_PER_GPU="1", CUDA_VISIBLE_DEVICES=devices)


def load(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """Clients with one prompt at a time, from one to 4,096: tokens a second, and how long an answer takes."""
    del plan, others
    model = gpu_peers.model_of("0.5B")
    peers: list[Callable[[], Any]] = [*gpu_peers.services(model), lambda: gpu_peers.api_server(model)]
    peers += gpu_peers.nvidia_peers(model)
    for make in peers:
        with make() as peer:
            peer.clients_s(questions(512)(0), 256)  # warm-up
            told = {n: peer.clients_s(questions(max(16, _PAIRS * n))(n), n) for n in CLIENTS}
        curves: dict[tuple[str, str], Callable[[float, list[float]], float]] = {
            ("tokens a second", "tokens/s"): lambda seconds, each: len(each) * TOKENS / seconds,
            ("time of an answer, median", "s"): lambda _, each: statistics.median(each),
            ("time of an answer, 95th percentile", "s"): lambda _, each: statistics.quantiles(each, n=20)[-1],
        }
        for (what, unit), of in curves.items():
            values = {float(clients): [of(*found)] for clients, found in told.items()}
            report.draw(f"single prompts of 64 tokens, 0.5 B: {what}", peer.name, "clients", unit, values)


PARTS: dict[str, Part] = {
    "gpus": gpus,
    "tensor-parallel": tensor_parallel,
    "load": load,
    **{f"engines-{shape}": partial(engines, shape) for shape in ENGINE_COUNTS},
}
