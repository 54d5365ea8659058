"""What a row of a step costs the scheduler, vLLM's own and ours: `python -m benchmarks.scheduler`. Needs no GPU.

Only the scheduler's part of an engine runs: a batch of rows, with a model that answers at once.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import benchmarks.model_package  # noqa: F401 - makes `llm_model` importable
from benchmarks.peers import default_model

ROWS, TOKENS, PROMPT_TOKENS, REPEATS = 256, 64, 50, 5
BLOCK, BLOCKS = 16, 20_000


def main() -> None:
    """Print microseconds a row and step, for `schedule` and for `update_from_output`."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    from llm_model.engines.vllm_scheduler import ShortWayAsyncScheduler

    for name, kind in (("vLLM's", AsyncScheduler), ("with the short way", ShortWayAsyncScheduler)):
        scheduler = scheduler_of(kind, engine_config(), BLOCK, BLOCKS)
        run(scheduler, 0)
        schedule, update = zip(*(run(scheduler, number) for number in range(1, REPEATS + 1)), strict=True)
        print(f"{name}: schedule {statistics.median(schedule):.2f}, update {statistics.median(update):.2f} µs a row")


def engine_config() -> Any:
    """An engine's on a GPU."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=str(default_model()),
        max_num_seqs=1040,
        max_num_batched_tokens=16384,
        enforce_eager=True,
        async_scheduling=True,
        scheduling_policy="priority",
    ).create_engine_config()


def scheduler_of(kind: Any, config: Any, block_size: int, blocks: int) -> Any:
    """A scheduler as an engine's core makes it, with so many blocks of so many tokens for its KV cache."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    config.cache_config.num_gpu_blocks, config.cache_config.block_size = blocks, block_size
    spec = FullAttentionSpec(block_size=block_size, num_kv_heads=1, head_size=8, dtype=config.model_config.dtype)
    return kind(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=block_size,
        hash_block_size=block_size,
        log_stats=True,
    )


def add_rows(scheduler: Any, number: int) -> None:
    """So many prompts, none of which another batch knows."""
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    hasher = get_request_block_hasher(BLOCK, sha256)
    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True)
    for row in range(ROWS):
        prompt = [number, row, *range(PROMPT_TOKENS - 2)]
        scheduler.add_request(Request(f"{number}-{row}", prompt, params, None, block_hasher=hasher))


def run(scheduler: Any, number: int) -> tuple[float, float]:
    """Microseconds a row in each of the two, from the first token to the last."""
    from vllm.v1.outputs import ModelRunnerOutput

    add_rows(scheduler, number)
    before, rows, schedule_s, update_s = None, 0, 0.0, 0.0
    while scheduler.has_requests():
        began = time.perf_counter()
        output = scheduler.schedule()
        schedule_s += time.perf_counter() - began
        if before is not None and before.total_num_scheduled_tokens:
            names = list(before.num_scheduled_tokens)
            index = {name: place for place, name in enumerate(names)}
            result = ModelRunnerOutput(names, index, sampled_token_ids=[[place % 50] for place in range(len(names))])
            began = time.perf_counter()
            scheduler.update_from_output(before, result)
            update_s += time.perf_counter() - began
            rows += len(names)
        before = output
    return schedule_s / rows * 1e6, update_s / rows * 1e6


if __name__ == "__main__":
    main()
