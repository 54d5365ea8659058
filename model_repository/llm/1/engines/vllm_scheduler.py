"""vLLM's scheduler with a short way for the rows that are only asked for one more token.

In a step nearly every row is such a row: its prompt is computed, the step adds one token, and nothing else is to be
decided. vLLM takes it the same long way as any other, for 15 µs of the Python that bounds an engine of a small model.
Here those rows go around it; all others, and everything that happens to a step as a whole, are vLLM's own code.

What a row's short way does is what vLLM's would have done, field by field, in the versions that ``vllm_options`` names;
``tests/integration/model/test_vllm_scheduler.py`` runs both beside each other. Sources, all in vLLM's ``vllm/v1``:
``core/sched/scheduler.py``, ``core/sched/async_scheduler.py``, ``core/kv_cache_manager.py``, ``request.py``.
"""

# ruff: noqa: SLF001 - what vLLM keeps for itself is what this file is about
from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request, RequestStatus

from ..logs import logger


def use(config: Any) -> None:
    """Have the engine of this ``VllmConfig`` made with the scheduler below, unless more than plain decoding takes part.

    An operator who names a ``scheduler_cls`` gets that one.
    """
    if _suits(config):
        chosen = ShortWayAsyncScheduler if config.scheduler_config.async_scheduling else ShortWayScheduler
        config.scheduler_config.scheduler_cls = f"{__name__}.{chosen.__name__}"
        logger.info("rows that only go on by a token have a short way through vLLM's scheduler")


def _suits(config: Any) -> bool:
    scheduler, parallel = config.scheduler_config, config.parallel_config
    return (
        scheduler.scheduler_cls is None
        and not scheduler.long_prefill_token_threshold
        and (scheduler.max_num_scheduled_tokens or 0) <= scheduler.max_num_batched_tokens
        and parallel.pipeline_parallel_size == parallel.data_parallel_size == 1
        and config.speculative_config is None
        and config.kv_transfer_config is None
        and config.ec_transfer_config is None
        and not config.model_config.is_diffusion
    )


# Of a scheduler: what looks at every row of a step once more.
_WANT_ALL_ROWS = (
    *("needs_kv_cache_zeroing", "return_sampling_mask", "enable_return_routed_experts"),
    *("aux_output_connector", "perf_metrics"),
)
# Of a scheduler: how much goes into a step, and how many rows run (the second of these is newer than 0.25).
_LIMITS = ("max_num_running_reqs", "max_num_active_reqs", "max_num_scheduled_tokens")


@dataclass(frozen=True, slots=True)
class _Plain:
    """What ends a row of which only tokens are asked."""

    stops: frozenset[int | None]
    end: int  # tokens with the prompt's, at which the row is full


class ShortWayScheduler(Scheduler):  # type: ignore[misc, unused-ignore]
    """See the module. Made by vLLM in an engine's core process, from the name in its ``scheduler_cls``."""

    running: list[Request]
    _ahead = 0  # steps of a row that are scheduled before the token of the one before is known

    def __init__(self, *args: Any, kv_cache_config: Any, block_size: int, **kwargs: Any) -> None:
        super().__init__(*args, kv_cache_config=kv_cache_config, block_size=block_size, **kwargs)
        groups = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
        self._fits = (
            # Windows and states have blocks to give back in every step. With one group of full attention a row needs
            # a block for every ``block_size`` tokens, and that is all.
            len(groups) == 1
            and type(groups[0]) is FullAttentionSpec
            and groups[0].block_size == block_size == (kwargs.get("hash_block_size") or block_size)
            and not self.kv_cache_manager.watermark_blocks  # kept free only while vLLM sees rows that run
            and not any(getattr(self, name, None) for name in _WANT_ALL_ROWS)
        )
        self._counts_in_flight = False

    def add_request(self, request: Request) -> None:
        request.plain = self._plain(request) if self._fits else None
        self._counts_in_flight = hasattr(request, "num_in_flight_tokens")  # newer than 0.25
        super().add_request(request)

    def _plain(self, request: Request) -> _Plain | None:
        params = request.sampling_params
        special = (
            params is None
            or request.pooling_params is not None
            or request.use_structured_output
            or request.has_encoder_inputs
            or request.prompt_token_ids is None
            or request.prompt_embeds is not None
            or request.lora_request is not None
            or request.trace_headers is not None
            or request.resumable
            or params.num_logprobs is not None
            or params.prompt_logprobs is not None
            or params.repetition_detection is not None
        )
        if special:
            return None
        stops = frozenset((params.eos_token_id, *(params.stop_token_ids or ())))
        return _Plain(stops, min(request.num_prompt_tokens + request.max_tokens, self.max_model_len))

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step. Plain rows keep their places and their share of the step's tokens while vLLM fills the rest."""
        running = self.running
        plain, others = self._divided(running)
        if not plain or not self._room_for_all(plain):
            return super().schedule(*args, **kwargs)
        new_blocks = [self._new_blocks(request) for request in plain]
        self.running, admitted_from = others, len(others)
        with self._taken(len(plain)):
            output = super().schedule(*args, **kwargs)
        self.running = running + self.running[admitted_from:]
        self._add(output, plain, new_blocks)
        return output

    @contextlib.contextmanager
    def _taken(self, rows: int) -> Iterator[None]:
        """So many rows are in the step already, with a token each."""
        limits = [name for name in _LIMITS if hasattr(self, name)]
        for name in limits:
            setattr(self, name, getattr(self, name) - rows)
        try:
            yield
        finally:
            for name in limits:
                setattr(self, name, getattr(self, name) + rows)

    def _divided(self, running: list[Request]) -> tuple[list[Request], list[Request]]:
        """The rows that want just one token in this step and at least one more after it, and all others."""
        plain, others = [], []
        for request in running:
            row, computed = request.plain, request.num_computed_tokens
            if (
                row is not None
                and not request.is_prefill_chunk
                and len(request._all_token_ids) + request.num_output_placeholders == computed + 1
                and computed + 2 < row.end
            ):
                plain.append(request)
            else:
                others.append(request)
        return plain, others

    def _room_for_all(self, plain: list[Request]) -> bool:
        """Whether a step takes place, and nobody can have to give up blocks in it."""
        tokens = self.max_num_scheduled_tokens
        blocks = self.max_num_running_reqs + tokens // self.block_size + 1
        return bool(
            len(plain) < tokens
            and self.kv_cache_manager.block_pool.get_num_free_blocks() >= blocks
            and self._pause_state == PauseState.UNPAUSED
            # vLLM's first model runner is told all tokens of a row that was not in the step before.
            and (
                self.use_v2_model_runner
                or self.prev_step_scheduled_req_ids.issuperset(request.request_id for request in plain)
            )
        )

    def _new_blocks(self, request: Request) -> tuple[list[int], ...] | None:
        size = self.block_size
        if request.num_computed_tokens % size and len(request._all_token_ids) % size:
            return None  # its last block has room, and none is new to the prefix cache
        blocks: tuple[list[int], ...] | None
        blocks = self.kv_cache_manager.allocate_slots(request, 1).get_block_ids(allow_none=True)
        return blocks

    def _add(self, output: Any, plain: list[Request], new_blocks: list[tuple[list[int], ...] | None]) -> None:
        """Put the plain rows into vLLM's step, before its own rows, and count their token as computed."""
        ids = [request.request_id for request in plain]
        cached = output.scheduled_cached_reqs
        cached.req_ids[:0] = ids
        cached.new_block_ids[:0] = new_blocks
        cached.num_computed_tokens[:0] = [request.num_computed_tokens for request in plain]
        cached.num_output_tokens[:0] = [
            request.num_output_tokens + request.num_output_placeholders for request in plain
        ]
        scheduled = {**dict.fromkeys(ids, 1), **output.num_scheduled_tokens}
        if output.num_scheduled_tokens:  # rows that end give their blocks back in this order
            scheduled = {name: scheduled[name] for row in self.running if (name := row.request_id) in scheduled}
        output.num_scheduled_tokens = scheduled
        output.total_num_scheduled_tokens += len(plain)
        for request in plain:
            request.num_computed_tokens += 1
            request.num_output_placeholders += self._ahead
            if self._counts_in_flight:
                request.num_in_flight_tokens += 1
        if not self.use_v2_model_runner:
            self.prev_step_scheduled_req_ids.update(ids)
        if output.num_common_prefix_blocks:  # in 0.25; a beginning that all rows have may be computed once
            output.num_common_prefix_blocks = self.kv_cache_manager.get_num_common_prefix_blocks(ids[0])

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """What a step gave. Rows that go on are told their token here; all that ends or begins is vLLM's."""
        if not model_runner_output.sampled_token_ids or model_runner_output.num_nans_in_logits:
            return super().update_from_output(scheduler_output, model_runner_output)
        told, others = self._told(scheduler_output.num_scheduled_tokens, model_runner_output)
        remainder = copy.copy(scheduler_output)
        remainder.num_scheduled_tokens = others
        result = super().update_from_output(remainder, model_runner_output)
        for client, outputs in told.items():
            result.setdefault(client, EngineCoreOutputs()).outputs += outputs
        return result

    def _told(self, scheduled: dict[str, int], result: Any) -> tuple[dict[int, list[EngineCoreOutput]], dict[str, int]]:
        """The outputs of the rows that go on, by client, and the scheduled tokens of all others."""
        told: dict[int, list[EngineCoreOutput]] = defaultdict(list)
        others = {}
        requests, sampled, index = self.requests, result.sampled_token_ids, result.req_id_to_index
        for name, scheduled_tokens in scheduled.items():
            request = requests.get(name)
            if request is not None and self._goes_on(request, tokens := sampled[index[name]]):
                self._append(request, tokens[0])
                told[request.client_index].append(EngineCoreOutput(name, tokens))
            else:
                others[name] = scheduled_tokens
        return told, others

    @staticmethod
    def _goes_on(request: Request, tokens: list[int]) -> bool:
        row = request.plain
        return (
            row is not None
            and len(tokens) == 1
            and tokens[0] not in row.stops
            and len(request._all_token_ids) + 1 < row.end
            and request.status is RequestStatus.RUNNING
            and request.prefill_stats is None  # they go out with a row's first token
            and not request.events
            and not request.num_preemptions  # what was under way then is stale
        )

    def _append(self, request: Request, token: int) -> None:
        request._output_token_ids.append(token)
        request._all_token_ids.append(token)
        request.num_output_placeholders -= self._ahead
        if self._counts_in_flight:
            request.num_in_flight_tokens -= 1
        tokens, size = len(request._all_token_ids), self.block_size
        if tokens % size == 0:
            request.update_block_hashes()
        computed = request.num_computed_tokens - request.num_output_placeholders
        if self._ahead and computed % size == 0:
            self.kv_cache_manager.cache_blocks(request, computed)


class ShortWayAsyncScheduler(ShortWayScheduler, AsyncScheduler):  # type: ignore[misc, unused-ignore]
    """The same for asynchronous scheduling, vLLM's choice on a GPU."""

    _ahead = 1
