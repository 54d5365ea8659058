"""Our scheduler beside vLLM's: the same requests, step for step. Needs no model, only the scheduler's own classes."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from benchmarks.scheduler import scheduler_of
from llm_model.engines.vllm_options import has_our_scheduler

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not has_our_scheduler(), reason="no vLLM, or one with which it is not used"),
    pytest.mark.filterwarnings("default"),  # vLLM's imports are not ours to keep free of warnings
]

BLOCK = 4
MAX_MODEL_LEN = 60
MAX_ROWS = 12
MAX_TOKENS_A_STEP = 64
EOS, STOP = 7, 8
# Blocks of KV cache: for all rows at once, for so many that there is room in some steps only, and for few rows.
AMPLE, CHANGING, TIGHT = 400, 90, 28


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    from tests.unit.model.tiny_model import write_model_folder

    shape = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    folder = write_model_folder(tmp_path_factory.mktemp("tiny"), vocab_size=360, **shape)
    return EngineArgs(
        model=str(folder),
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=MAX_ROWS,
        max_num_batched_tokens=MAX_TOKENS_A_STEP,
        scheduling_policy="priority",
        enforce_eager=True,
    ).create_engine_config()


@dataclass
class Wish:
    """A request that comes before a step, and perhaps goes before another."""

    name: str
    prompt: list[int]
    step: int
    abort_before: int | None
    priority: int
    params: dict[str, Any]

    def made(self) -> Any:
        from vllm import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher
        from vllm.v1.request import Request

        params = SamplingParams(**self.params)
        params._eos_token_id = EOS  # what vLLM's input processor does
        return Request(
            self.name,
            list(self.prompt),
            params,
            None,
            arrival_time=float(self.step),
            priority=self.priority,
            block_hasher=get_request_block_hasher(BLOCK, sha256),
        )


def wishes(seed: int, count: int) -> list[Wish]:
    chance = random.Random(seed)
    beginnings = [[chance.randrange(10, 90) for _ in range(chance.randrange(3, 14))] for _ in range(3)]
    made = []
    for number in range(count):
        own = [chance.randrange(10, 90) for _ in range(chance.randrange(1, 20))]
        params: dict[str, Any] = {"max_tokens": chance.choice([1, 2, 3, 9, 17, 40, 60])}
        params |= chance.choice([{}, {}, {"ignore_eos": True}, {"min_tokens": 1}, {"logprobs": 1}])
        params |= chance.choice([{}, {"stop_token_ids": [STOP]}])
        step = chance.randrange(0, 40)
        abort = step + chance.randrange(1, 20) if chance.random() < 0.15 else None
        prompt = chance.choice(beginnings) + own
        made.append(Wish(f"row-{number}", prompt, step, abort, chance.choice([0, 0, 1]), params))
    return made


def token(name: str, position: int) -> int:
    """What the model says next in this row: anything, and now and then a token that ends it."""
    return random.Random(f"{name} {position}").choice([EOS, STOP, *range(10, 90)])


@dataclass
class Run:
    """A scheduler at work, and all that it said and remembers after each step."""

    scheduler: Any
    ahead: int
    seen: list[Any] = field(default_factory=list)
    underway: list[Any] = field(default_factory=list)

    def step(self, number: int, todo: list[Wish]) -> None:
        from vllm.v1.request import RequestStatus

        for wish in todo:
            if wish.step == number:
                self.scheduler.add_request(wish.made())
            if wish.abort_before == number:
                self.scheduler.finish_requests(wish.name, RequestStatus.FINISHED_ABORTED)
        output = self.scheduler.schedule()
        self.seen.append(("scheduled", number, told_to_the_model(output)))
        self.underway.append(output)
        if len(self.underway) > self.ahead:
            self._result(self.underway.pop(0))
        self.seen.append(("remembered", number, state(self.scheduler)))

    def _result(self, output: Any) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: place for place, name in enumerate(names)},
            sampled_token_ids=[self._sampled(name, output) for name in names],
        )
        for client, outputs in self.scheduler.update_from_output(output, result).items():
            rows = [
                (row.request_id, row.new_token_ids, row.finish_reason, row.stop_reason, bool(row.events))
                for row in outputs.outputs
            ]
            stats = outputs.scheduler_stats
            self.seen.append((client, sorted(rows), stats and (stats.num_running_reqs, stats.num_waiting_reqs)))

    def _sampled(self, name: str, output: Any) -> list[int]:
        """One token for a row that is computed up to its end, none for one in the midst of its prompt."""
        request, cached = self.scheduler.requests.get(name), output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        computed |= {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        end = computed[name] + output.num_scheduled_tokens[name]
        return [] if request is None or end < request.num_tokens else [token(name, end)]


def told_to_the_model(output: Any) -> Any:
    """A step, but for the numbers of blocks: which of the free ones a row gets is nobody's concern."""
    cached = output.scheduled_cached_reqs
    lengths = [blocks and [len(group) for group in blocks] for blocks in cached.new_block_ids]
    rows = zip(cached.req_ids, lengths, cached.num_computed_tokens, cached.num_output_tokens, strict=True)
    new = [
        (row.req_id, row.num_computed_tokens, [len(group) for group in row.block_ids])
        for row in output.scheduled_new_reqs
    ]
    return (
        sorted(rows),
        sorted(new),
        list(output.num_scheduled_tokens.items()),
        output.total_num_scheduled_tokens,
        sorted(output.finished_req_ids),
        sorted(cached.resumed_req_ids),
        {name: list(tokens) for name, tokens in cached.all_token_ids.items()},
        list(output.num_common_prefix_blocks),
    )


def state(scheduler: Any) -> Any:
    """What the scheduler keeps of each row. Nothing reads ``next_decode_eligible_step`` without a pipeline."""
    left_out = {"plain", "events", "prefill_stats", "sampling_params", "output_token_ids", "all_token_ids"}
    left_out |= {"_block_hasher", "next_decode_eligible_step"}
    rows = {
        name: {key: repr(value) for key, value in vars(request).items() if key not in left_out}
        for name, request in scheduler.requests.items()
    }
    pool = scheduler.kv_cache_manager.block_pool
    kept = sorted(map(repr, pool.cached_block_hash_to_block._cache))
    waiting = sorted(request.request_id for request in scheduler.waiting)
    return rows, [request.request_id for request in scheduler.running], waiting, pool.get_num_free_blocks(), kept


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("blocks", [AMPLE, CHANGING, TIGHT], ids=["ample", "changing", "tight"])
@pytest.mark.parametrize("v2", [False, True], ids=["first runner", "second runner"])
@pytest.mark.parametrize("ahead", [0, 1], ids=["synchronous", "asynchronous"])
def test_it_does_what_vllms_does(config: Any, ahead: int, v2: bool, blocks: int, seed: int) -> None:
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import init_none_hash
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from llm_model.engines.vllm_scheduler import ShortWayAsyncScheduler, ShortWayScheduler

    init_none_hash(sha256)
    todo = wishes(seed, 60)
    kinds = (AsyncScheduler, ShortWayAsyncScheduler) if ahead else (Scheduler, ShortWayScheduler)
    theirs, ours = (Run(scheduler_of(kind, config, BLOCK, blocks), ahead) for kind in kinds)
    theirs.scheduler.use_v2_model_runner = ours.scheduler.use_v2_model_runner = v2
    went = count_the_short_way(ours.scheduler)
    for number in range(400):
        theirs.step(number, todo)
        ours.step(number, todo)
        assert ours.seen == theirs.seen, f"step {number}"
        ours.seen.clear()
        theirs.seen.clear()
        if number > 60 and not theirs.scheduler.has_requests():
            break
    assert not ours.scheduler.has_requests()
    assert ours.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == blocks - 1  # one is vLLM's own
    if blocks == TIGHT:
        assert went["scheduled"] == 0
        assert went["preempted"] > 0
    else:
        assert went["scheduled"] > (200 if blocks == AMPLE else 100)
        assert went["told"] > 200


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, "ShortWayScheduler"),
        ({"async_scheduling": True}, "ShortWayAsyncScheduler"),
        ({"scheduler_cls": "operators.own"}, None),
        ({"long_prefill_token_threshold": 32}, None),
        ({"max_num_scheduled_tokens": MAX_TOKENS_A_STEP + 1}, None),
    ],
    ids=["synchronous", "asynchronous", "the operator's", "a rule for long prompts", "a budget beyond the step's"],
)
def test_who_gets_it(config: Any, settings: dict[str, Any], chosen: str | None) -> None:
    from llm_model.engines import vllm_scheduler

    asked = copy.deepcopy(config)
    for name, value in settings.items():
        setattr(asked.scheduler_config, name, value)
    vllm_scheduler.use(asked)
    expected = f"{vllm_scheduler.__name__}.{chosen}" if chosen else settings.get("scheduler_cls")
    assert asked.scheduler_config.scheduler_cls == expected


def test_drafts_are_left_to_vllm(config: Any) -> None:
    from llm_model.engines import vllm_scheduler

    asked = copy.deepcopy(config)
    asked.speculative_config = object()
    vllm_scheduler.use(asked)
    assert asked.scheduler_config.scheduler_cls is None


def count_the_short_way(scheduler: Any) -> dict[str, int]:
    went = {"scheduled": 0, "told": 0, "preempted": 0}

    def counted(name: str, what: str, many: Any) -> None:
        inner = getattr(scheduler, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            went[what] += many(args)
            return inner(*args, **kwargs)

        setattr(scheduler, name, outer)

    counted("_add", "scheduled", lambda args: len(args[1]))
    counted("_append", "told", lambda args: 1)
    counted("_preempt_request", "preempted", lambda args: 1)
    return went
