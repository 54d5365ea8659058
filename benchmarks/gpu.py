"""`python -m benchmarks gpu`: targets P1 to P4 and P8 to P10, and how it scales, on NVIDIA GPUs.

The models have random weights (`shapes.py`). Each part can be run alone (`--part`), so that several GPUs of a machine
can be used at once, each by a process that sees one GPU and a share of the cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import gpu_peers, scaling, variants
from benchmarks.gpu_jobs import batch, questions, singles
from benchmarks.gpu_peers import API_SERVER, IN_PROCESS, NVIDIA, OURS, STOCK, TUNED, WITHOUT_MPS
from benchmarks.peers import Server, UrlPeer
from benchmarks.results import Figure, Report, ratio
from benchmarks.side_by_side import Job, Latency, Part, Plan, measure, report_all

SINGLES, SINGLE_TOKENS = 100, 16
Figures = dict[str, Figure]


def run(report: Report, plan: Plan, others: Sequence[Server], parts: Sequence[str]) -> None:
    """Measure these parts."""
    for part in parts:
        BY_NAME[part](report, plan, others)


def batches(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """P1 to P3: batches and many clients; one start of a peer serves all of them."""
    model = gpu_peers.model_of("0.5B")
    theirs = [lambda server=server: UrlPeer(server.url, server.url, server.model) for server in others]
    plain, penalties, large, clients = jobs = [
        batch("batch of 1,024, 0.5 B, no penalties", 1024),
        Job("batch of 1,024, 0.5 B, default penalties and stop tokens", "prompts/s", 1, questions(1024, plain=False)),
        batch("batch of 4,096, 0.5 B, no penalties", 4096),
        singles("256 clients with single prompts, 0.5 B", 2048, clients=256),
    ]
    figures = report_all(report, jobs, measure(gpu_peers.all_peers(model, theirs), jobs, plan))
    for ours in (OURS, WITHOUT_MPS):
        for job in (plain, penalties):
            compare(report, "P1", job.what, figures[job.what], ours, STOCK, 3.5)
        for job in (plain, large):
            compare(report, "P2", job.what, figures[job.what], ours, API_SERVER, 4.5)
            compare(report, "P2", job.what, figures[job.what], ours, NVIDIA, 6.0)
        compare(report, "P3", clients.what, figures[clients.what], ours, API_SERVER, 1.5)


def start(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """P8: first with empty compile caches, then with what that start has left in them."""
    del plan, others
    model = gpu_peers.model_of("0.5B")
    with tempfile.TemporaryDirectory(prefix="benchmark-caches-") as caches:
        folders = {name: f"{caches}/{name}" for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR")}
        environ = {**folders, "TRITON_CACHE_DIR": f"{caches}/triton"}
        cold, *warm = [_seconds_to_ready(lambda: gpu_peers.service(model, **environ)) for _ in range(3)]
    for target, what, seconds, most in (("cold", "cold compile cache", [cold], 170), ("warm", "warm one", warm, 75)):
        figure = report.add(f"start to ready, four engines, 0.5 B, {what}", OURS, "s", seconds, higher=False)
        report.judge("P8", f"start, {target}", f"≤ {most} s", f"{figure.median:.0f} s", max(seconds) <= most)


def _seconds_to_ready(make: Callable[[], Any]) -> float:
    with make() as peer:
        return float(peer.start_s)


def latency(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """P4: what one client waits longer than for the engine alone."""
    del others
    model = gpu_peers.model_of("0.5B")
    peers: list[Callable[[], Any]] = [
        lambda: gpu_peers.in_process(model),
        lambda: gpu_peers.service(model),
        lambda: gpu_peers.api_server(model),
    ]
    what = f"one client, single prompts, {SINGLE_TOKENS} tokens each, 0.5 B"
    job = Latency(what, "ms", 1, questions(SINGLES, tokens=SINGLE_TOKENS), clients=1)
    figures = report_all(report, [job], measure(peers, [job], plan))[what]
    for name in (OURS, API_SERVER):
        if name in figures and IN_PROCESS in figures:
            added = figures[name].median - figures[IN_PROCESS].median
            target, wanted = ("P4", "≤ 2 ms") if name == OURS else ("–", "–")
            report.judge(target, f"one client: added by {name}", wanted, f"{added:.1f} ms", added <= 2 or name != OURS)


def large_model(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """P9: a model whose engine is the limit."""
    del others
    model = gpu_peers.model_of("4B")
    job = batch("batch of 1,024, 4 B, no penalties", 1024)
    peers: list[Callable[[], Any]] = [
        lambda: gpu_peers.service(model),
        lambda: gpu_peers.tuned(model),
        lambda: gpu_peers.api_server(model),
    ]
    figures = report_all(report, [job], measure(peers, [job], plan))[job.what]
    compare(report, "P9", job.what, figures, OURS, TUNED, 1.0)


def compare(report: Report, target: str, what: str, figures: Figures, ours: str, other: str, least: float) -> None:
    """Judge a ratio, where both have been measured."""
    if ours in figures and other in figures:
        found = ratio(figures[ours], figures[other])
        report.judge(target, f"{what}: {ours} over {other}", f"≥ {least:g}", f"{found:.2f}", found >= least)


PARTS: dict[str, Part] = {
    "batches": batches,
    "start": start,
    "latency": latency,
    "large-model": large_model,
    **scaling.PARTS,
}
BY_NAME = {**PARTS, **variants.PARTS}  # these only when named: they take half an hour a shape
