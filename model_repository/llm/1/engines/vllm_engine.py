"""vLLM as an engine of the pool. Only this file and vllm_scheduler.py import vLLM; this one only its public names.

Differences between vLLM's versions live here too, each with the version it concerns.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import vllm
from vllm import AsyncEngineArgs, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from ..adapters import Adapter
from ..errors import EngineUnavailable, GenerationFailed, InvalidArgument, StartupError, first_line
from ..logs import logger
from ..parameters import SamplingParameters
from .base import EngineStatus, GenerationRequest, Sample
from .failure_log import FailureLog, cause, fitting_length
from .places import BatchPlaces
from .stats import EngineStats
from .vllm_figures import take_iteration_stats, take_scheduler_stats
from .vllm_options import Device, has_our_scheduler
from .vllm_sampling import sample_of, sampling_fields, structure_fields

try:  # 0.28 on: bad requests raise this; before, ValueError
    from vllm.exceptions import VLLMClientError
except ImportError:
    VLLMClientError = ValueError

VERSION: str = vllm.__version__
_FAILED = ("error", "abort")  # finish reasons (vllm/v1/engine/__init__.py); those who abort are gone
_TOLD = 500  # characters of vLLM's refusals


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


class _StartFailed(StartupError):
    """``fitting_length`` is the context that the KV cache would hold, where that is the cause and vLLM says so."""

    def __init__(self, exc: Exception, log: str) -> None:
        super().__init__(f"vLLM {VERSION} cannot start: {cause(exc, log)}")
        self.fitting_length = fitting_length(f"{exc}\n{log}")


class VllmEngine:
    """One ``AsyncLLM`` with its EngineCore processes. Satisfies :class:`Engine`."""

    def __init__(self, name: str, options: dict[str, Any], user_options: Collection[str] = ()) -> None:
        """``options`` are engine arguments; those named in ``user_options`` were set by the operator."""
        self.name = name
        self._user_options = user_options
        self._options = options
        self._llm: AsyncLLM | None = None
        self._notes: tuple[str, ...] = ()
        self.stats = EngineStats()
        self._places = BatchPlaces(_whole_number(options, "max_num_seqs"), self.stats)

    @property
    def dtype(self) -> str:
        """The type the weights are computed in, known once started."""
        return str(self._llm.model_config.dtype).removeprefix("torch.") if self._llm else str(self._options["dtype"])

    async def start(self) -> None:
        """Start with the options; once more with a shorter context if vLLM says which one its KV cache holds."""
        self._notes = ()
        try:
            await self._launch(self._options)
        except _StartFailed as exc:
            length, wanted = exc.fitting_length, self._options.get("max_model_len")
            if length is None or wanted is None or not 1 < length < wanted:
                raise
            note = f"the KV cache does not hold max_model_len {wanted}; {length} is used, the length that vLLM names"
            logger.warning("%s: %s", self.name, note)
            self._notes = (note,)
            await self._launch({**self._options, "max_model_len": length})

    async def _launch(self, options: dict[str, Any]) -> None:
        known = _known_options(options, self._user_options)
        failures = FailureLog.of(os.environ)
        failures.mark()
        try:
            # On a thread: it blocks for as long as the model loads, and other engines' requests run on this loop.
            self._llm = await asyncio.to_thread(
                AsyncLLM.from_engine_args, _EngineArgs(**known), stat_loggers=[_stat_logger(self.stats)]
            )
        except Exception as exc:  # vLLM raises whatever went wrong, down to pydantic's and torch's own errors
            raise _StartFailed(exc, failures.text()) from exc

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        final: Any = None
        with _translated_errors():
            async with self._places.take(request):
                async for output in self._run(request, RequestOutputKind.FINAL_ONLY):
                    final = output
                    _raise_if_failed(output)
        if final is None:
            raise GenerationFailed("vLLM ended the request without an output")
        return sorted((sample_of(out, request.detokenize) for out in final.outputs), key=lambda sample: sample.index)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        with _translated_errors():
            run = contextlib.aclosing(self._run(request, RequestOutputKind.DELTA))
            async with self._places.take(request), run as outputs:
                async for output in outputs:
                    _raise_if_failed(output)
                    yield [sample_of(out, request.detokenize) for out in output.outputs]

    def _run(self, request: GenerationRequest, kind: RequestOutputKind) -> Any:
        if self._llm is None:
            raise EngineUnavailable(f"{self.name} is not started")
        return self._llm.generate(
            {"type": "token", "prompt_token_ids": request.token_ids},  # "type": 0.19 on takes it as rendered input
            _sampling_params(request.params, request.detokenize, kind),
            request.request_id,
            lora_request=_lora_request(request.adapter),
            priority=request.priority,
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
            batch_places=self._places.count,
            max_model_len=self._llm.model_config.max_model_len if self._llm else None,
            notes=self._notes,
        )

    async def stop(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)


class _EngineArgs(AsyncEngineArgs):  # type: ignore[misc, unused-ignore]
    """Engine arguments whose engine gets our scheduler where that is known to do what vLLM's does."""

    def create_engine_config(self, *args: Any, **kwargs: Any) -> Any:
        config = super().create_engine_config(*args, **kwargs)
        if has_our_scheduler():
            from . import vllm_scheduler

            vllm_scheduler.use(config)
        return config


def _whole_number(options: dict[str, Any], name: str) -> int:
    value = options[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StartupError(f"VLLM_ENGINE_ARGS: {name} has the value {value!r}; a whole number from 1 on is allowed")
    return value


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
                take_scheduler_stats(stats, scheduler_stats)
            if iteration_stats is not None:
                take_iteration_stats(stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return StatsCollector


def _sampling_params(params: SamplingParameters, detokenize: bool, kind: RequestOutputKind) -> SamplingParams:
    """vLLM's parameters for ours; where they are small, shared by all requests with the same ones."""
    make = _kept_sampling_params if params.is_small else _kept_sampling_params.__wrapped__
    return make(params, detokenize, kind)


@lru_cache(maxsize=1024)
def _kept_sampling_params(params: SamplingParameters, detokenize: bool, kind: RequestOutputKind) -> SamplingParams:
    """vLLM's parameters for ours.

    ``skip_clone`` (0.19 on) makes vLLM copy the object shallowly for each request instead of deeply; nothing in it is
    changed afterwards but for additions that are the same for every request.
    """
    fields = sampling_fields(params)
    if params.structured_outputs is not None:
        fields.update(_structured_outputs(structure_fields(params.structured_outputs)))
    if params.n == 1 and hasattr(SamplingParams, "skip_clone"):
        fields["skip_clone"] = True
    try:
        return SamplingParams(**fields, detokenize=detokenize, output_kind=kind)
    except (ValueError, VLLMClientError) as exc:
        raise InvalidArgument(f"sampling_parameters: {first_line(exc)}") from exc


def _structured_outputs(fields: dict[str, Any]) -> dict[str, Any]:
    try:
        from vllm.sampling_params import StructuredOutputsParams  # 0.11 on
    except ImportError:
        from vllm.sampling_params import GuidedDecodingParams

        return {"guided_decoding": GuidedDecodingParams(**fields)}
    return {"structured_outputs": StructuredOutputsParams(**fields)}


def _lora_request(adapter: Adapter | None) -> LoRARequest | None:
    return adapter and LoRARequest(adapter.name, adapter.number, adapter.folder)


def _raise_if_failed(output: Any) -> None:
    """What vLLM's own server answers with 500, a grammar that cannot be compiled among others; its log says why."""
    if any(out.finish_reason in _FAILED for out in output.outputs):
        raise GenerationFailed("the engine failed on this prompt")


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """vLLM's errors become ours here and nowhere else."""
    try:
        yield
    except EngineDeadError as exc:
        raise EngineUnavailable("the engine died") from exc
    except (ValueError, VLLMClientError) as exc:
        raise InvalidArgument(" ".join(str(exc).split())[:_TOLD]) from exc
    except RuntimeError as exc:
        logger.exception("vLLM failed on a request")
        raise GenerationFailed("the engine failed on this prompt") from exc
