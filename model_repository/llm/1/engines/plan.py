"""How many engines there are, on which devices, and how they share memory and cores. Pure: facts in, plan out.

Measured on an H100 with 80 GB, 1,024 prompts of 64 tokens, in thousands of tokens a second. 0.5 B parameters: one
engine 31 to 40, two 40 to 61, three 76, four 75 to 90, six 82 to 88. 1.7 B: one 28, two 43, three 44, four 41; with 256
single prompts at a time 25, 27, 22, 18. 4 B: one 33, two 27. One engine of a small model is bound by its CPU side, so
several share a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import StartupError
from ..settings import ModelSettings
from .gpus import Gpu
from .mps import mps_environ
from .places import KEPT_AT_MOST
from .vllm_options import MANY_SEQS, Device

_GIB = 1 << 30
# Weights up to this size: so many engines a GPU. Measured with 16 cores; an engine of a small model fills one while it
# computes. With four cores, four engines of 0.5 B gave 62,500 tokens/s in a batch of 1,024 and 28,900 with 256 clients,
# two gave 54,200 and 30,500, and with cold caches they were ready after 97 and 94 s: so no fewer until there are fewer
# cores than engines.
_AUTO = ((3 * _GIB // 2, 4), (9 * _GIB // 2, 2))
_GPU_SHARE = 0.9
_METAX_SHARE = 0.6  # its driver and its maths library hold memory that vLLM does not count
# Activations and logits of a step, captured graphs, the CUDA context: what an engine takes beside weights and KV cache.
_RESERVE_BYTES = 4 * _GIB
_LEAST_KV_BYTES = _GIB
# Places for rows. An engine that shares its GPU has as many as one alone where memory is ample: 4,096 rows for four
# engines gave 139,700 tokens/s so, 120,400 with the fewer (0.5 B). Those are a sixteenth more than an even share of
# 4,096 rows on two GPUs, so that a few rows of other batches find a place beside them.
_FEW_SEQS = 544 + KEPT_AT_MOST
_AMPLE_KV_BYTES = 8 * _GIB
# What a place takes beyond the reserve: 0.7 GiB were measured for 480, with a vocabulary of 152,000.
_SEQ_BYTES = 3 << 19
_KV_BYTES_KNOWN_FROM = (0, 19)
_VLLMS_LARGEST_GRAPH = 512  # twice the sequences, but no more, is what it captures by itself
_GRAPH_STEP = 16
# Arguments of the operator's that an argument of the plan would contradict.
_ABOUT_GRAPHS = ("compilation_config", "cudagraph_capture_sizes", "max_cudagraph_capture_size")
_ABOUT_MEMORY = ("gpu_memory_utilization", "num_gpu_blocks_override")
# On a CPU vLLM would give the model a process of its own, bound to the cores of one memory node, for which the engine's
# scheduler waits in a loop of `sched_yield`. That takes a core, and Linux 6.18 then lets other processes stand still
# for seconds. Measured on two cores, course-qa, batches of 200 times 64 tokens: 3,200 tokens/s with that process,
# 5,500 without; ready after 33 and 24 s. Two engines: 2,300 and 5,300. Binding is for machines with several nodes.
_BINDING = "VLLM_CPU_OMP_THREADS_BIND"
_PROCESSES = "VLLM_ENABLE_V1_MULTIPROCESSING"  # unless "0", vLLM's CPU platform makes "mp" of the executor "uni"


@dataclass(frozen=True)
class Facts:
    """What the plan is made from. ``release`` is vLLM's; ``cores`` are those this process may use.

    ``memory_nodes`` is how many parts the memory has that are near to some of the cores only (NUMA), ``cpu_limit`` how
    many cores' time may be used, if not all of theirs.
    """

    device: Device
    gpus: Sequence[Gpu]
    weight_bytes: int
    release: tuple[int, ...]
    cores: Sequence[int]
    environ: Mapping[str, str] = field(default_factory=dict)
    memory_nodes: int = 1
    cpu_limit: float = math.inf

    @property
    def cpus(self) -> float:
        """How many cores' time may be used."""
        return min(self.cpu_limit, len(self.cores))


@dataclass(frozen=True)
class PlannedEngine:
    """One engine: its devices, engine arguments by vLLM's names, and what is set in its environment."""

    name: str
    gpu: str | None
    options: Mapping[str, Any]
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The engines, and how many of them may start at a time."""

    device: Device
    engines: tuple[PlannedEngine, ...]
    side_by_side: int


def make_plan(settings: ModelSettings, facts: Facts, kind: str = "vllm") -> Plan:
    """The engines named ``{kind}-{number}``. The operator's own settings go before those of the plan.

    Raises :class:`StartupError` for an argument that the plan has to know by another name.
    """
    if "tensor_parallel_size" in dict(settings.engine_args):
        raise StartupError("VLLM_ENGINE_ARGS: tensor_parallel_size is not allowed; set TENSOR_PARALLEL_SIZE instead")
    if facts.device == "cpu":
        return _on_cpu(settings, facts, kind)
    groups = _groups(facts.gpus, settings.tensor_parallel_size)
    count = settings.engines_per_gpu or _auto_count(settings, facts, groups)
    options = [_gpu_options(settings, facts, group, count) for group in groups]
    # Number by number over all GPUs: engines that must not start together on one GPU may do so on several.
    engines = [
        PlannedEngine(
            f"{kind}-{turn * len(groups) + place}",
            ",".join(gpu.name for gpu in group),
            options[place],
            _gpu_environ(facts, group, is_shared=count > 1),
        )
        for turn in range(count)
        for place, group in enumerate(groups)
    ]
    measures = count > 1 and not all("kv_cache_memory_bytes" in found for found in options)
    return Plan("gpu", tuple(engines), len(groups) if measures else len(engines))


def _on_cpu(settings: ModelSettings, facts: Facts, kind: str) -> Plan:
    count = settings.engines_per_gpu or 1
    own_way = bool(facts.environ.get(_BINDING) or facts.environ.get(_PROCESSES))
    # With tensor parallelism one engine has several workers, which vLLM spreads over the cores.
    if settings.tensor_parallel_size > 1 or own_way:
        engines = [PlannedEngine(f"{kind}-{number}", None, {}, {}) for number in range(count)]
    else:
        make = _in_one_process if facts.memory_nodes == 1 else _near_its_memory
        engines = [make(f"{kind}-{number}", _share_of_cores(facts, number, count), facts) for number in range(count)]
    return Plan("cpu", tuple(engines), count)


def _in_one_process(name: str, cores: Sequence[int], facts: Facts) -> PlannedEngine:
    environ = {_PROCESSES: "0"}
    if facts.cores and not facts.environ.get("OMP_NUM_THREADS"):
        # Its share of the limit: more threads would wait for each other, held up. By itself it would take all cores.
        threads = max(1, int(facts.cpus * len(cores) / len(facts.cores)))
        if threads < len(facts.cores):
            environ["OMP_NUM_THREADS"] = str(threads)
    return PlannedEngine(name, None, {"distributed_executor_backend": "uni"}, environ)


def _near_its_memory(name: str, cores: Sequence[int], facts: Facts) -> PlannedEngine:
    """Bound by vLLM: to the cores of one memory node, or to its own where there are several engines."""
    is_alone = len(cores) in (0, len(facts.cores))
    return PlannedEngine(name, None, {}, {} if is_alone else {_BINDING: ",".join(map(str, cores))})


def _share_of_cores(facts: Facts, number: int, count: int) -> Sequence[int]:
    """One core at least, where there are any."""
    first, end = (place * len(facts.cores) // count for place in (number, number + 1))
    return facts.cores[first : max(end, first + 1)]


def _groups(gpus: Sequence[Gpu], size: int) -> list[Sequence[Gpu]]:
    """Groups of ``size`` GPUs each; one group of what there is if that is less, which vLLM then explains."""
    groups = [gpus[first : first + size] for first in range(0, len(gpus) - size + 1, size)]
    return groups or [gpus]


def _gpu_environ(facts: Facts, group: Sequence[Gpu], *, is_shared: bool) -> dict[str, str]:
    environ = mps_environ(facts.environ) if is_shared else {}
    if group:
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.name for gpu in group)
    if not facts.environ.get("OMP_NUM_THREADS"):
        environ["OMP_NUM_THREADS"] = "1"  # the engine's own threads are few; more only disturb the other engines
    return environ


def _share(settings: ModelSettings, group: Sequence[Gpu]) -> float:
    """The part of a GPU's memory that all its engines together may use."""
    default = _METAX_SHARE if any(gpu.maker == "metax" for gpu in group) else _GPU_SHARE
    return settings.gpu_memory_utilization or default


def _memory(group: Sequence[Gpu]) -> int | None:
    """The memory of the smallest GPU of a group, if all of them tell theirs."""
    found = [gpu.memory_bytes for gpu in group]
    return None if not found or None in found else min(size for size in found if size is not None)


def _kv_bytes(settings: ModelSettings, facts: Facts, group: Sequence[Gpu], count: int, seqs: int) -> int | None:
    """What each of ``count`` engines has for its KV cache; ``None`` where the GPU's memory is not known."""
    memory = _memory(group)
    if memory is None:
        return None
    weights = facts.weight_bytes // settings.tensor_parallel_size
    reserve = _RESERVE_BYTES + max(0, seqs - _FEW_SEQS) * _SEQ_BYTES
    return int(_share(settings, group) * memory / count) - weights - reserve


def _asked_seqs(settings: ModelSettings) -> int | None:
    """The places of an engine that the operator has asked for."""
    found = dict(settings.engine_args).get("max_num_seqs")
    return found if isinstance(found, int) else settings.max_num_seqs


def _auto_count(settings: ModelSettings, facts: Facts, groups: Sequence[Sequence[Gpu]]) -> int:
    """By the size of the weights, fewer where memory or cores are few; one where it cannot be told."""
    if not facts.weight_bytes:
        return 1
    count = next((number for limit, number in _AUTO if facts.weight_bytes <= limit), 1)
    count = max(1, min(count, int(facts.cpus / len(groups))))
    seqs = _asked_seqs(settings) or _FEW_SEQS
    while count > 1 and any(
        (_kv_bytes(settings, facts, group, count, seqs) or 0) < _LEAST_KV_BYTES for group in groups
    ):
        count -= 1
    return count


def _gpu_options(settings: ModelSettings, facts: Facts, group: Sequence[Gpu], count: int) -> dict[str, Any]:
    options: dict[str, Any] = {"gpu_memory_utilization": round(_share(settings, group) / count, 4)}
    if (largest := _largest_graph(settings)) is not None:
        options["max_cudagraph_capture_size"] = largest
    if count == 1:
        return options
    seqs = _asked_seqs(settings) or _seqs_when_shared(settings, facts, group, count)
    options["max_num_seqs"] = seqs
    kv_bytes = _kv_bytes(settings, facts, group, count, seqs)
    is_left_to_vllm = facts.release < _KV_BYTES_KNOWN_FROM or _are_set(settings, _ABOUT_MEMORY)
    if not is_left_to_vllm and kv_bytes is not None and kv_bytes > 0:
        # Said instead of measured, so that engines can start side by side.
        options["kv_cache_memory_bytes"] = kv_bytes
    return options


def _seqs_when_shared(settings: ModelSettings, facts: Facts, group: Sequence[Gpu], count: int) -> int:
    with_many = _kv_bytes(settings, facts, group, count, MANY_SEQS)
    return MANY_SEQS if with_many is not None and with_many >= _AMPLE_KV_BYTES else _FEW_SEQS


def _largest_graph(settings: ModelSettings) -> int | None:
    """Up to how many tokens a step has a captured graph, the steps of a prefill too; ``None``: as vLLM does it.

    Beyond the largest a step runs without graphs, and vLLM's own are fewer than several engines have places.
    """
    if settings.compilation_config is not None or settings.enforce_eager or _are_set(settings, _ABOUT_GRAPHS):
        return None
    seqs = _asked_seqs(settings) or MANY_SEQS
    if seqs <= _VLLMS_LARGEST_GRAPH:
        return None
    return min(-(-seqs // _GRAPH_STEP) * _GRAPH_STEP, MANY_SEQS)


def _are_set(settings: ModelSettings, names: Sequence[str]) -> bool:
    """Whether the operator has said any of these engine arguments."""
    return any(name in names for name, _ in settings.engine_args)
