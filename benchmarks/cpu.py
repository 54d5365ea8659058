"""`make bench`: the targets of the CPU path, P5 to P7, in under ten minutes on two quiet cores."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import workload
from benchmarks.peers import ApiServerPeer, OfflinePeer, ProjectPeer, Server, TokenIdsPeer, UrlPeer, default_model
from benchmarks.process_costs import below, cpu_s, memory_peak, resident_mib
from benchmarks.results import Report, ratio
from benchmarks.side_by_side import Job, Plan, measure, report_all

PROMPTS, TOKENS = 200, 64
SINGLES, CLIENTS = 4000, 64
BATCH, BATCHES = 1024, 5
LARGE = 10_000
GATEWAY, STUB = "-m gateway", "triton_python_backend_stub"
# What the service asks vLLM for on a CPU (vllm_options.py); the peers that are "tuned" get the same.
ENGINE = {"max_model_len": 2048, "max_num_seqs": 272, "max_num_batched_tokens": 4096, "enforce_eager": True}
ENVIRON = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}
# And for its processes (plan.py): no worker beside the engine. `LLM` then has the engine in the caller's process, too.
PROCESSES = {"distributed_executor_backend": "uni"}
PROCESSES_ENVIRON = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def run(report: Report, plan: Plan, others: Sequence[Server] = ()) -> None:
    """Measure all."""
    batch_of_questions(report, plan, others)
    with ProjectPeer("this service, echo engine", settings(USE_VLLM="echo", TRITON_MAX_RESTARTS="0")) as echo:
        single_prompts(report, echo)
        cpu_of_batches(report, echo)
        gateway_memory(report, echo)


def settings(**more: str) -> dict[str, str]:
    """The service's, with the length that the peers have too."""
    return {
        "MODEL_DIR": str(default_model()),
        "MAX_MODEL_LEN": str(ENGINE["max_model_len"]),
        "LOG_LEVEL": "WARNING",
        **more,
    }


def peers(others: Sequence[Server]) -> list[Any]:
    """Functions that make the peers: a peer is used once."""
    model = str(default_model())
    memory = {"gpu_memory_utilization": 0.3}  # of the machine's: vLLM's own share counts what others use
    same: Mapping[str, Any] = {"model": model, "dtype": dtype(), **memory, **ENGINE}
    tuned_environ = {**ENVIRON, **PROCESSES_ENVIRON}
    arguments = [f"--model={model}", f"--dtype={dtype()}", "--gpu-memory-utilization=0.3"]
    arguments += [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in {**ENGINE, **PROCESSES}.items()
    ]
    stock = {"model": model, "max_model_len": ENGINE["max_model_len"], **memory}

    def of_url(server: Server) -> Any:
        return lambda: UrlPeer(server.url, server.url, server.model)

    return [
        lambda: ProjectPeer("this service", settings()),
        lambda: TokenIdsPeer("vLLM offline, tuned alike", {**same, **PROCESSES}, tuned_environ),
        lambda: TokenIdsPeer("vLLM offline, same engine settings", same, ENVIRON),
        lambda: OfflinePeer("vLLM offline, stock", stock, ENVIRON),
        lambda: ApiServerPeer("vLLM's API server, tuned alike", arguments, tuned_environ),
        *map(of_url, others),
    ]


def dtype() -> str:
    """As the service chooses it: float32 where the CPU has no bf16 instructions."""
    with open("/proc/cpuinfo", errors="replace") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    return "auto" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


def batch_of_questions(report: Report, plan: Plan, others: Sequence[Server]) -> None:
    """P5: a batch through `/predict` against offline vLLM with the same engine settings."""
    what = f"batch of {PROMPTS} questions, {TOKENS} tokens each"
    job = Job(what, "tokens/s", TOKENS, lambda number: workload.make(PROMPTS, TOKENS, number))
    figures = report_all(report, [job], measure(peers(others), [job], plan))[what]
    ours = figures.get("this service")
    for name, figure in figures.items():
        if ours is None or figure is ours:
            continue
        found = ratio(ours, figure)
        if "offline" in name:
            report.judge("P5", f"batch over {name}", "≥ 1.0", f"{found:.2f}", found >= 1.0)
        else:
            report.judge("–", f"batch over {name}", "–", f"{found:.2f}", True)


def single_prompts(report: Report, echo: ProjectPeer) -> None:
    """P6, first half: single prompts through gateway and Triton, the client beside them."""
    work = workload.make(SINGLES, 8, 1)
    echo.clients_s(workload.make(CLIENTS * 4, 8, 0), CLIENTS)
    found = [len(work.questions) / echo.clients_s(work, CLIENTS)[0] for _ in range(3)]
    figure = report.add(f"single prompts, {CLIENTS} clients", echo.name, "prompts/s", found)
    report.judge("P6", "single prompts a second", "≥ 1,000", f"{figure.median:,.0f}", figure.median >= 1000)


def cpu_of_batches(report: Report, echo: ProjectPeer) -> None:
    """P6, second half: CPU time a prompt of a batch, in the gateway and in the stub."""
    for name, part, most in (("gateway", GATEWAY, 60.0), ("stub", STUB, 100.0)):
        pid = below(echo.pid, part)
        echo.batch_s(workload.make(BATCH, 8, 0))
        costs = []
        for repeat in range(3):
            works = [workload.make(BATCH, 8, 10 * repeat + number) for number in range(BATCHES)]
            before = cpu_s(pid)
            for work in works:
                echo.batch_s(work)
            costs.append((cpu_s(pid) - before) / (BATCH * BATCHES) * 1e6)
        figure = report.add(f"CPU a prompt, batch of {BATCH}", f"{echo.name}: {name}", "µs", costs, higher=False)
        report.judge(
            "P6", f"CPU a prompt in the {name}", f"≤ {most:.0f} µs", f"{figure.median:.0f} µs", figure.median <= most
        )


def gateway_memory(report: Report, echo: ProjectPeer) -> None:
    """P7: the gateway's memory with a batch of 10,000 prompts, and after it."""
    pid = below(echo.pid, GATEWAY)
    before = resident_mib(pid)
    peaks, afters = [], []
    for repeat in range(3):
        with memory_peak(pid) as peak:
            echo.batch_s(workload.make(LARGE, 16, repeat))
        peaks.append(peak.mib)
        afters.append(settled(pid) - before)
    what = f"gateway's memory, batch of {LARGE}"
    highest = report.add(f"{what}: peak", echo.name, "MiB", peaks, higher=False)
    rest = report.add(f"{what}: after it, over before", echo.name, "MiB", afters, higher=False)
    report.judge("P7", "peak", "≤ 250 MB", f"{highest.median:.0f} MiB", max(peaks) <= 250)
    report.judge("P7", "left after it", "≤ 30 MB", f"{rest.median:.0f} MiB", max(afters) <= 30)


def settled(pid: int, seconds: float = 5.0) -> float:
    """The least memory within some seconds: what the process comes back to."""
    end = time.monotonic() + seconds
    least = resident_mib(pid)
    while time.monotonic() < end:
        least = min(least, resident_mib(pid))
        time.sleep(0.1)
    return least
