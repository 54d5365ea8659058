"""What the pool expects of an engine, and the types that pass between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec

from ..adapters import Adapter
from ..parameters import SamplingParameters
from .stats import EngineStats


class GenerationRequest(msgspec.Struct, frozen=True):
    """One prompt on its way to an engine.

    ``request_id`` is the model's own, never a caller's. ``token_ids`` is the whole prompt. ``detokenize`` asks the
    engine for text (streaming, stop strings, log probabilities); without it samples carry token ids only and the
    caller decodes whole batches. A smaller ``priority`` goes first. ``adapter`` is the LoRA adapter to generate with.
    """

    request_id: str
    token_ids: list[int]
    params: SamplingParameters
    detokenize: bool = False
    priority: int = 0
    adapter: Adapter | None = None


class Sample(msgspec.Struct):
    """One of the ``n`` completions of a prompt: all of it, or, from :meth:`Engine.stream`, what is new.

    ``token_ids`` ends with the stop token where one ended the completion. ``text`` is ``None`` when the request did
    not ask to be detokenized. ``finish_reason`` is ``None`` until the completion has ended, then ``"stop"`` or
    ``"length"``. ``stop_reason`` is the stop string or stop token id that ended it, ``None`` for end-of-sequence.
    ``logprobs`` holds one mapping a token: token id → ``{"logprob", "rank", "decoded_token"}``.
    """

    index: int
    token_ids: list[int] = []
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, dict[str, object]]] | None = None


@dataclass(frozen=True)
class EngineStatus:
    """A snapshot of one engine for ``/info``, metrics and the watchdog.

    ``state`` is ``"starting"``, ``"ready"``, ``"restarting"`` (after it died) or ``"dead"``, which it stays.
    ``seconds_since_step`` is the age of the latest sign that the engine made progress (a step that produced tokens),
    ``None`` before the first. ``gpu`` names the devices it was given, ``None`` on a CPU; ``pid`` is its process where
    it has one of its own. ``batch_places`` is how many rows of batches it computes at a time, where that is bounded.
    ``max_model_len`` is the context that the engine really has, in tokens, where it may be less than what it was told;
    ``notes`` say why.
    """

    name: str
    state: str
    running: int = 0
    waiting: int = 0
    outstanding_tokens: int = 0
    seconds_since_step: float | None = None
    gpu: str | None = None
    pid: int | None = None
    restarts: int = 0
    batch_places: int | None = None
    max_model_len: int | None = None
    notes: tuple[str, ...] = ()


Outcome = list[Sample] | Exception
"""How a prompt ended: its samples, or why there are none."""
Done = Callable[[Outcome], None]
"""Is told how a prompt ended, on the event loop. Must not raise."""


class Engine(Protocol):
    """One inference engine. All methods are called on the event loop that called :meth:`start`."""

    name: str
    stats: EngineStats

    @property
    def dtype(self) -> str:
        """The type the weights are computed in, as torch names it; exact once started."""

    async def start(self) -> None:
        """Load the model. Raises :class:`StartupError` with the cause in one line.

        May be called again after the engine died.
        """

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        """Return the ``n`` finished samples of one prompt, ordered by index.

        Cancelling the awaiting task aborts the generation. Raises :class:`InvalidArgument`,
        :class:`GenerationFailed`, or :class:`EngineDied` when the engine died meanwhile.
        """

    def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        """Yield new samples as tokens come. Closing the iterator aborts the generation. Raises as :meth:`generate`."""

    def is_alive(self) -> bool:
        """Whether the engine can take requests."""

    def status(self) -> EngineStatus:
        """Return a snapshot; never blocks."""

    async def stop(self) -> None:
        """End the engine and its processes; idempotent."""


@runtime_checkable
class CallbackEngine(Engine, Protocol):
    """An engine that needs no task for a prompt: with thousands of them the tasks cost more than the rest."""

    def begin(self, request: GenerationRequest, done: Done) -> None:
        """Run one prompt to its end and tell ``done``, once; what :meth:`generate` raises is told to it as well."""

    def cancel(self, request_id: str) -> None:
        """Abort a prompt; ``done`` is not told. Nothing happens to one that has ended."""


@runtime_checkable
class RestartableEngine(Engine, Protocol):
    """An engine in a process of its own. One without dies with the model, or says for good that it is not alive."""

    async def wait_dead(self) -> str:
        """Return why, once the started engine has died or hangs and its processes are gone; it may be started again."""
