"""vLLM as an engine of the pool. The only file that imports vLLM, and only its public names.

Differences between vLLM's versions live here too, each with the version it concerns.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import vllm
from vllm import AsyncEngineArgs, SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from ..errors import EngineUnavailable, GenerationFailed, InvalidArgument, StartupError
from ..logs import logger
from ..parameters import SamplingParameters, StructuredOutputs
from .base import EngineStatus, GenerationRequest, Sample
from .stats import EngineStats
from .vllm_options import Device

try:  # 0.28 on: bad requests raise this; before, ValueError
    from vllm.exceptions import VLLMClientError
except ImportError:
    VLLMClientError = ValueError

VERSION: str = vllm.__version__


def unsupported_reason(model_dir: str) -> str | None:
    """Why vLLM cannot serve this model on this machine; ``None`` if it can."""
    if device() is None:
        return f"vLLM {VERSION} finds no device it supports on this machine"
    architectures = json.loads(Path(model_dir, "config.json").read_text(encoding="utf-8")).get("architectures") or []
    supported = set(vllm.ModelRegistry.get_supported_archs())
    if not supported.intersection(architectures):
        return f"vLLM {VERSION} does not support the architecture {', '.join(architectures) or 'of this model'}"
    return None


def device() -> Device | None:
    """What vLLM computes on here."""
    if current_platform.is_cpu():
        return "cpu"
    return None if current_platform.device_type in ("", None) else "gpu"


class VllmEngine:
    """One ``AsyncLLM`` with its EngineCore processes. Satisfies :class:`Engine`."""

    def __init__(self, name: str, options: dict[str, Any], user_options: Collection[str] = ()) -> None:
        """``options`` are engine arguments; those named in ``user_options`` were set by the operator."""
        self.name = name
        self._user_options = user_options
        self._options = options
        self._llm: AsyncLLM | None = None
        self.stats = EngineStats()

    @property
    def dtype(self) -> str:
        """The type the weights are computed in, known once started."""
        return str(self._llm.model_config.dtype).removeprefix("torch.") if self._llm else str(self._options["dtype"])

    async def start(self) -> None:
        arguments = AsyncEngineArgs(**_known_options(self._options, self._user_options))
        try:
            # On a thread: it blocks for as long as the model loads, and other engines' requests run on this loop.
            self._llm = await asyncio.to_thread(
                AsyncLLM.from_engine_args, arguments, stat_loggers=[_stat_logger(self.stats)]
            )
        except Exception as exc:  # vLLM raises whatever went wrong, down to pydantic's and torch's own errors
            raise StartupError(f"vLLM {VERSION} cannot start: {_cause(exc)}") from exc

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        final: Any = None
        with _translated_errors():
            async for output in self._run(request, RequestOutputKind.FINAL_ONLY):
                final = output
        if final is None:
            raise GenerationFailed("vLLM ended the request without an output")
        return sorted((self._sample(out, request) for out in final.outputs), key=lambda sample: sample.index)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        with _translated_errors():
            async with contextlib.aclosing(self._run(request, RequestOutputKind.DELTA)) as outputs:
                async for output in outputs:
                    yield [self._sample(out, request) for out in output.outputs]

    def _run(self, request: GenerationRequest, kind: RequestOutputKind) -> Any:
        if self._llm is None:
            raise EngineUnavailable(f"{self.name} is not started")
        return self._llm.generate(
            {"type": "token", "prompt_token_ids": request.token_ids},  # "type": 0.19 on takes it as rendered input
            _sampling_params(request.params, request.detokenize, kind),
            request.request_id,
            priority=request.priority,
        )

    @staticmethod
    def _sample(output: Any, request: GenerationRequest) -> Sample:
        return Sample(
            index=output.index,
            token_ids=list(output.token_ids),
            text=output.text if request.detokenize else None,
            finish_reason=output.finish_reason,
            stop_reason=output.stop_reason,
            cumulative_logprob=output.cumulative_logprob,
            logprobs=_plain_logprobs(output.logprobs),
        )

    def is_alive(self) -> bool:
        return self._llm is not None and not self._llm.errored

    def status(self) -> EngineStatus:
        state = "starting" if self._llm is None else "ready" if self.is_alive() else "dead"
        return EngineStatus(
            name=self.name,
            state=state,
            running=int(self.stats.gauges["vllm:num_requests_running"]),
            waiting=int(self.stats.gauges["vllm:num_requests_waiting"]),
            seconds_since_step=self.stats.seconds_since_step,
        )

    async def stop(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)


def _known_options(options: dict[str, Any], user_options: Collection[str]) -> dict[str, Any]:
    """The options that this vLLM has: a default of ours that it lacks is left out, one of the operator's is refused."""
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in user_options:
        if name not in known:
            raise StartupError(f"VLLM_ENGINE_ARGS: vLLM {VERSION} has no engine argument '{name}'")
    return {name: value for name, value in options.items() if name in known}


def _stat_logger(stats: EngineStats) -> Callable[..., StatLoggerBase]:
    """vLLM's extension point: a factory for the object that is told the figures of every step."""

    class StatsCollector(StatLoggerBase):  # type: ignore[misc, unused-ignore]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(self, scheduler_stats: Any = None, iteration_stats: Any = None, *_: Any, **__: Any) -> None:
            stats.step_completed()
            if scheduler_stats is not None:
                _take_scheduler_stats(stats, scheduler_stats)
            if iteration_stats is not None:
                _take_iteration_stats(stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return StatsCollector


def _take_scheduler_stats(stats: EngineStats, scheduler: Any) -> None:
    stats.gauges["vllm:num_requests_running"] = scheduler.num_running_reqs
    stats.gauges["vllm:num_requests_waiting"] = scheduler.num_waiting_reqs
    stats.gauges["vllm:kv_cache_usage_perc"] = scheduler.kv_cache_usage
    speculation = getattr(scheduler, "spec_decoding_stats", None)
    if speculation is not None:
        for name in ("num_drafts", "num_draft_tokens", "num_accepted_tokens"):
            stats.count(f"vllm:spec_decode_{name}_total", getattr(speculation, name))


def _take_iteration_stats(stats: EngineStats, step: Any) -> None:
    by_source = getattr(step, "prompt_token_stats", None)  # 0.16 on; before, one number
    stats.count("vllm:prompt_tokens_total", by_source.total if by_source is not None else step.num_prompt_tokens)
    stats.count("vllm:generation_tokens_total", step.num_generation_tokens)
    stats.count("vllm:num_preemptions_total", step.num_preempted_reqs)
    stats.histograms["vllm:time_to_first_token_seconds"].observe(step.time_to_first_tokens_iter)
    between = getattr(step, "inter_token_latencies_iter", None)  # 0.11 on; before, under the older name
    stats.histograms["vllm:inter_token_latency_seconds"].observe(
        step.time_per_output_tokens_iter if between is None else between
    )
    for finished in step.finished_requests:
        stats.count("vllm:request_success_total", 1, (("finished_reason", str(finished.finish_reason)),))
        stats.histograms["vllm:e2e_request_latency_seconds"].observe([finished.e2e_latency])
        stats.histograms["vllm:request_queue_time_seconds"].observe([finished.queued_time])


@lru_cache(maxsize=1024)
def _sampling_params(params: SamplingParameters, detokenize: bool, kind: RequestOutputKind) -> SamplingParams:
    """vLLM's parameters for ours; shared by all requests with the same ones.

    ``skip_clone`` (0.19 on) makes vLLM copy the object shallowly for each request instead of deeply; nothing in it is
    changed afterwards but for additions that are the same for every request.
    """
    fields = {name: getattr(params, name) for name in params.__struct_fields__}
    fields["stop"] = list(params.stop_strings) or None
    for name in ("stop_token_ids", "allowed_token_ids", "bad_words"):
        fields[name] = list(getattr(params, name) or ()) or None
    fields["logit_bias"] = dict(params.logit_bias or ()) or None
    fields.update(_structured_outputs(fields.pop("structured_outputs")))
    if params.n == 1 and hasattr(SamplingParams, "skip_clone"):
        fields["skip_clone"] = True
    try:
        return SamplingParams(**fields, detokenize=detokenize, output_kind=kind)
    except (ValueError, VLLMClientError) as exc:
        raise InvalidArgument(f"sampling_parameters: {_first_line(exc)}") from exc


def _structured_outputs(structure: StructuredOutputs | None) -> dict[str, Any]:
    if structure is None:
        return {}
    wanted = msgspec.structs.asdict(structure)
    wanted["choice"] = list(structure.choice) if structure.choice is not None else None
    given = {name: value for name, value in wanted.items() if value is not None}
    try:
        from vllm.sampling_params import StructuredOutputsParams  # 0.11 on
    except ImportError:
        from vllm.sampling_params import GuidedDecodingParams

        return {"guided_decoding": GuidedDecodingParams(**given)}
    return {"structured_outputs": StructuredOutputsParams(**given)}


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """vLLM's errors become ours here and nowhere else."""
    try:
        yield
    except EngineDeadError as exc:
        raise EngineUnavailable("the engine died") from exc
    except (ValueError, VLLMClientError) as exc:
        raise InvalidArgument(_first_line(exc)) from exc
    except RuntimeError as exc:
        logger.exception("vLLM failed on a request")
        raise GenerationFailed("the engine failed on this prompt") from exc


def _plain_logprobs(logprobs: Any) -> list[dict[int, dict[str, Any]]] | None:
    if logprobs is None:
        return None
    return [
        {
            token_id: {"logprob": item.logprob, "rank": item.rank, "decoded_token": item.decoded_token}
            for token_id, item in position.items()
        }
        for position in logprobs
    ]


def _cause(exc: BaseException) -> str:
    """The innermost error's first line: vLLM wraps causes several times."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return _first_line(exc)


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
