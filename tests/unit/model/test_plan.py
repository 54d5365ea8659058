"""How many engines there are, where, and how they share a GPU's memory and a machine's cores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from llm_model.engines.gpus import Gpu
from llm_model.engines.places import kept_for_singles
from llm_model.engines.plan import Facts, Plan, make_plan
from llm_model.engines.selection import memory_nodes
from llm_model.errors import StartupError
from llm_model.settings import ModelSettings

GIB = 1 << 30
H100 = Gpu("0", 80 * GIB)
SMALL, MIDDLE, LARGE = GIB, 4 * GIB, 8 * GIB


def gpu_plan(
    weights: int = SMALL,
    gpus: tuple[Gpu, ...] = (H100,),
    release: tuple[int, ...] = (0, 32),
    cpus: float = math.inf,
    **environ: str,
) -> Plan:
    settings = ModelSettings.from_env(environ)
    return make_plan(settings, Facts("gpu", gpus, weights, release, range(16), environ, cpu_limit=cpus))


def cpu_plan(cores: int = 2, nodes: int = 1, cpus: float = math.inf, **environ: str) -> Plan:
    facts = Facts("cpu", (), SMALL, (0, 32), range(cores), environ, nodes, cpus)
    return make_plan(ModelSettings.from_env(environ), facts)


def options(plan: Plan) -> dict[str, Any]:
    """The engine arguments, the same for all engines."""
    first, *others = (engine.options for engine in plan.engines)
    assert all(other == first for other in others)
    return dict(first)


# How many


@pytest.mark.parametrize(
    "weights, count", [(SMALL, 4), (3 * GIB // 2, 4), (3 * GIB // 2 + 1, 2), (MIDDLE, 2), (LARGE, 1), (0, 1)]
)
def test_a_small_model_has_several_engines_on_a_gpu(weights: int, count: int) -> None:
    assert len(gpu_plan(weights).engines) == count


@pytest.mark.parametrize("memory, count", [(80, 4), (40, 4), (24, 3), (16, 2), (8, 1)])
def test_there_are_fewer_where_the_memory_does_not_hold_them(memory: int, count: int) -> None:
    assert len(gpu_plan(SMALL, (Gpu("0", memory * GIB),)).engines) == count
    assert len(gpu_plan(SMALL, (H100, Gpu("1", memory * GIB))).engines) == 2 * count  # the smallest counts


@pytest.mark.parametrize("environ", [{"VLLM_MAX_NUM_SEQS": "4096"}, {"VLLM_ENGINE_ARGS": '{"max_num_seqs": 4096}'}])
def test_places_that_were_asked_for_take_memory_too(environ: dict[str, str]) -> None:
    plan = gpu_plan(SMALL, (Gpu("0", 40 * GIB),), **environ)
    assert len(plan.engines) == 3
    assert options(plan)["max_num_seqs"] == 4096
    assert options(plan)["kv_cache_memory_bytes"] > GIB


@pytest.mark.parametrize(
    "cpus, gpus, count", [(16, 1, 4), (16, 2, 4), (4, 1, 4), (3.5, 1, 3), (4, 2, 2), (1, 1, 1), (0.5, 1, 1)]
)
def test_there_are_fewer_where_the_cores_do_not_feed_them(cpus: float, gpus: int, count: int) -> None:
    plan = gpu_plan(SMALL, tuple(Gpu(str(number), 80 * GIB) for number in range(gpus)), cpus=cpus)
    assert len(plan.engines) == gpus * count
    assert len(gpu_plan(SMALL, cpus=cpus, ENGINES_PER_GPU="4").engines) == 4


def test_a_gpu_that_does_not_tell_its_memory_has_one_engine_unless_told_otherwise() -> None:
    assert len(gpu_plan(gpus=(Gpu("0"),)).engines) == 1
    assert len(gpu_plan(gpus=(Gpu("0"),), ENGINES_PER_GPU="3").engines) == 3


def test_the_operators_number_is_taken_everywhere() -> None:
    assert len(gpu_plan(LARGE, ENGINES_PER_GPU="6").engines) == 6
    assert len(cpu_plan(ENGINES_PER_GPU="2").engines) == 2
    assert len(cpu_plan().engines) == 1


# Where


def test_every_gpu_has_its_engines() -> None:
    plan = gpu_plan(MIDDLE, (H100, Gpu("1", 80 * GIB)))
    assert [(engine.name, engine.gpu) for engine in plan.engines] == [
        ("vllm-0", "0"),
        ("vllm-1", "1"),
        ("vllm-2", "0"),
        ("vllm-3", "1"),
    ]
    assert [engine.environ["CUDA_VISIBLE_DEVICES"] for engine in plan.engines] == ["0", "1", "0", "1"]


def test_tensor_parallel_engines_have_groups_of_gpus() -> None:
    gpus = tuple(Gpu(str(number), 80 * GIB) for number in range(5))
    plan = gpu_plan(LARGE, gpus, TENSOR_PARALLEL_SIZE="2")
    assert [engine.gpu for engine in plan.engines] == ["0,1", "2,3"]


def test_too_few_gpus_for_a_group_are_left_for_vllm_to_explain() -> None:
    (engine,) = gpu_plan(LARGE, TENSOR_PARALLEL_SIZE="2").engines
    assert engine.gpu == "0"


# Memory


def test_engines_share_their_gpus_memory() -> None:
    found = options(gpu_plan(SMALL, GPU_MEMORY_UTILIZATION="0.8"))
    assert found["gpu_memory_utilization"] == 0.2
    assert 4 * (found["kv_cache_memory_bytes"] + SMALL) < 0.8 * 80 * GIB
    assert found["kv_cache_memory_bytes"] > 8 * GIB


def test_the_share_is_nine_tenths_or_less_where_the_driver_needs_more() -> None:
    assert options(gpu_plan(LARGE))["gpu_memory_utilization"] == 0.9
    assert options(gpu_plan(LARGE, (Gpu("0", None, "metax"),)))["gpu_memory_utilization"] == 0.6


@pytest.mark.parametrize(
    "release, memory, together", [((0, 32), 80, 2), ((0, 19), 80, 2), ((0, 18), 80, 1), ((0, 10), 80, 1)]
)
def test_engines_start_side_by_side_where_their_memory_is_said(
    release: tuple[int, ...], memory: int, together: int
) -> None:
    plan = gpu_plan(MIDDLE, (Gpu("0", memory * GIB),), release)
    assert (len(plan.engines), plan.side_by_side) == (2, together)
    assert ("kv_cache_memory_bytes" in options(plan)) == (together == 2)


def test_engines_that_measure_start_one_after_the_other_on_a_gpu_but_on_all_gpus_at_once() -> None:
    plan = gpu_plan(MIDDLE, (H100, Gpu("1", 80 * GIB)), (0, 10))
    assert (len(plan.engines), plan.side_by_side) == (4, 2)
    assert {engine.gpu for engine in plan.engines[:2]} == {"0", "1"}


# Batches and threads


@pytest.mark.parametrize("seqs, largest", [("", 1040), ("512", None), ("1000", 1008), ("1040", 1040), ("4096", 1040)])
def test_an_engine_captures_graphs_for_its_whole_batch(seqs: str, largest: int | None) -> None:
    """By itself vLLM captures twice the sequences, 512 at most; and only multiples of 16."""
    assert options(gpu_plan(LARGE, VLLM_MAX_NUM_SEQS=seqs)).get("max_cudagraph_capture_size") == largest


@pytest.mark.parametrize(
    "variable, value",
    [
        ("VLLM_ENFORCE_EAGER", "1"),
        ("VLLM_COMPILATION_CONFIG", "3"),
        ("VLLM_ENGINE_ARGS", '{"compilation_config": {"cudagraph_capture_sizes": [8]}}'),
        ("VLLM_ENGINE_ARGS", '{"cudagraph_capture_sizes": [8]}'),
        ("VLLM_ENGINE_ARGS", '{"max_cudagraph_capture_size": 8}'),
    ],
)
def test_the_operators_word_about_graphs_is_not_contradicted(variable: str, value: str) -> None:
    assert "max_cudagraph_capture_size" not in options(gpu_plan(LARGE, **{variable: value}))


@pytest.mark.parametrize("argument", ['{"gpu_memory_utilization": 0.1}', '{"num_gpu_blocks_override": 100}'])
def test_engines_measure_where_the_operator_has_said_their_memory(argument: str) -> None:
    plan = gpu_plan(VLLM_ENGINE_ARGS=argument)
    assert "kv_cache_memory_bytes" not in options(plan)
    assert plan.side_by_side == 1


def test_tensor_parallelism_is_said_by_its_variable() -> None:
    with pytest.raises(StartupError, match="tensor_parallel_size is not allowed; set TENSOR_PARALLEL_SIZE"):
        gpu_plan(VLLM_ENGINE_ARGS='{"tensor_parallel_size": 2}')


def test_several_engines_take_a_thousand_prompts_together() -> None:
    for count in (2, 4, 6):
        found = options(gpu_plan(SMALL, ENGINES_PER_GPU=str(count)))
        assert found["max_cudagraph_capture_size"] == 1040
        assert found["max_num_seqs"] * count >= 1024
    assert options(gpu_plan(SMALL, VLLM_MAX_NUM_SEQS="64"))["max_num_seqs"] == 64


@pytest.mark.parametrize(
    "weights, memory, seqs", [(SMALL, 80, 1040), (MIDDLE, 80, 1040), (SMALL, 40, 560), (SMALL, None, 560)]
)
def test_engines_have_as_many_places_as_one_alone_where_memory_is_ample(
    weights: int, memory: int | None, seqs: int
) -> None:
    gpu = Gpu("0", memory and memory * GIB)
    assert options(gpu_plan(weights, (gpu,), ENGINES_PER_GPU="4"))["max_num_seqs"] == seqs


def test_places_take_their_memory_from_the_kv_cache() -> None:
    few, many = (options(gpu_plan(VLLM_MAX_NUM_SEQS=str(seqs)))["kv_cache_memory_bytes"] for seqs in (560, 1040))
    assert 0.6 * GIB < few - many < 0.8 * GIB
    assert options(gpu_plan())["kv_cache_memory_bytes"] == many


def test_four_thousand_rows_that_are_shared_out_unevenly_still_run_at_once_on_two_gpus() -> None:
    plan = gpu_plan(SMALL, (Gpu("0", 40 * GIB), Gpu("1", 40 * GIB)))
    places = options(plan)["max_num_seqs"]
    assert places - kept_for_singles(places) >= 1.05 * 4096 / len(plan.engines)


def test_an_engine_on_a_gpu_has_one_thread_unless_told_otherwise() -> None:
    assert gpu_plan().engines[0].environ["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in gpu_plan(OMP_NUM_THREADS="8").engines[0].environ


def test_an_engine_on_a_cpu_is_one_process_that_uses_all_cores() -> None:
    (engine,) = cpu_plan(8).engines
    assert engine.options == {"distributed_executor_backend": "uni"}
    assert engine.environ == {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def threads(plan: Plan) -> list[str | None]:
    return [engine.environ.get("OMP_NUM_THREADS") for engine in plan.engines]


def test_several_engines_on_a_cpu_share_its_cores() -> None:
    assert threads(cpu_plan(2, ENGINES_PER_GPU="2")) == ["1", "1"]
    assert threads(cpu_plan(5, ENGINES_PER_GPU="2")) == ["2", "3"]
    assert threads(cpu_plan(1, ENGINES_PER_GPU="2")) == [None, None]
    assert threads(cpu_plan(2, ENGINES_PER_GPU="3")) == ["1", "1", "1"], "no engine takes all"
    assert threads(cpu_plan(8, ENGINES_PER_GPU="2", OMP_NUM_THREADS="8")) == [None, None]


def test_engines_on_a_cpu_keep_within_a_containers_limit() -> None:
    assert threads(cpu_plan(8, cpus=8)) == [None]
    assert threads(cpu_plan(8, cpus=2.5)) == ["2"]
    assert threads(cpu_plan(8, cpus=0.5)) == ["1"]
    assert threads(cpu_plan(8, cpus=4, ENGINES_PER_GPU="2")) == ["2", "2"]
    assert threads(cpu_plan(8, cpus=2, OMP_NUM_THREADS="8")) == [None]


def cores_of(plan: Plan) -> list[str | None]:
    assert all("distributed_executor_backend" not in engine.options for engine in plan.engines)
    assert all("VLLM_ENABLE_V1_MULTIPROCESSING" not in engine.environ for engine in plan.engines)
    return [engine.environ.get("VLLM_CPU_OMP_THREADS_BIND") for engine in plan.engines]


def test_with_several_memory_nodes_engines_are_bound_to_cores() -> None:
    assert cores_of(cpu_plan(5, nodes=2, ENGINES_PER_GPU="2")) == ["0,1", "2,3,4"]
    assert cores_of(cpu_plan(1, nodes=2, ENGINES_PER_GPU="2")) == [None, None]
    assert cores_of(cpu_plan(2, nodes=2, ENGINES_PER_GPU="3")) == ["0", "0", "1"]
    assert cores_of(cpu_plan(8, nodes=2)) == [None], "vLLM chooses"


@pytest.mark.parametrize(
    "own",
    [{"VLLM_CPU_OMP_THREADS_BIND": "0-1"}, {"TENSOR_PARALLEL_SIZE": "2"}],
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_what_the_operator_or_vllm_spreads_over_cores_stays(own: dict[str, str], nodes: int) -> None:
    assert cores_of(cpu_plan(8, nodes=nodes, ENGINES_PER_GPU="2", **own)) == [None, None]


def test_the_operator_may_keep_vllms_own_processes() -> None:
    assert cores_of(cpu_plan(8, VLLM_ENABLE_V1_MULTIPROCESSING="1")) == [None]


def test_memory_nodes_are_those_of_the_cores_that_may_be_used(tmp_path: Path) -> None:
    for path in ("node0/cpu0", "node0/cpu1", "node1/cpu2", "node1/cpu3", "node2/memory0"):
        (tmp_path / path).mkdir(parents=True)
    assert memory_nodes([0, 1], tmp_path) == 1
    assert memory_nodes([1, 2], tmp_path) == 2
    assert memory_nodes([0], tmp_path / "nothing") == 1
