"""An engine that answers a prompt with its own last tokens: for measuring everything but the model, and for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from ..tokenization import Tokenization
from .base import Done, EngineStatus, GenerationRequest, Sample
from .stats import EngineStats

Decode = Callable[[list[int], bool], str]  # token ids and skip_special_tokens in, text out


def decoder(tokenization: Tokenization) -> Decode:
    """How the echo engine makes text of one sequence."""

    def decode(token_ids: list[int], skip_special_tokens: bool) -> str:
        return tokenization.decode([token_ids], skip_special_tokens=skip_special_tokens)[0]

    return decode


class EchoEngine:
    """Returns the prompt's last ``max_tokens`` tokens, ``step_s`` seconds a token. Satisfies :class:`Engine`."""

    def __init__(self, name: str, decode: Decode, step_s: float = 0.0) -> None:
        self.name = name
        self.stats = EngineStats()
        self._decode = decode
        self._step_s = step_s
        self._running = 0
        self._last_step: float | None = None

    @property
    def dtype(self) -> str:
        return "none"

    async def start(self) -> None:
        self._last_step = time.monotonic()

    async def generate(self, request: GenerationRequest) -> list[Sample]:
        if not self._step_s:
            return self._at_once(request)
        samples = [Sample(index) for index in range(request.params.n)]
        async for pieces in self.stream(request):
            for piece in pieces:
                sample = samples[piece.index]
                sample.token_ids += piece.token_ids
                sample.finish_reason = piece.finish_reason
                if piece.text is not None:
                    sample.text = (sample.text or "") + piece.text
        return samples

    def _at_once(self, request: GenerationRequest) -> list[Sample]:
        self._last_step = time.monotonic()
        tokens = request.token_ids[-request.params.max_tokens :]
        text = self._text(request, tokens) if request.detokenize else None
        return [Sample(index, list(tokens), text, "length") for index in range(request.params.n)]

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[list[Sample], None]:
        tokens = request.token_ids[-request.params.max_tokens :]
        shown = ""
        self._running += 1
        try:
            for place, token_id in enumerate(tokens):
                if self._step_s:
                    await asyncio.sleep(self._step_s)
                self._last_step = time.monotonic()
                reason = "length" if place == len(tokens) - 1 else None
                before, shown = shown, self._text(request, tokens[: place + 1])
                new = shown[len(before) :] if request.detokenize else None
                yield [Sample(i, [token_id], new, reason) for i in range(request.params.n)]
        finally:
            self._running -= 1

    def _text(self, request: GenerationRequest, token_ids: list[int]) -> str:
        return self._decode(token_ids, request.params.skip_special_tokens) if request.detokenize else ""

    def is_alive(self) -> bool:
        return self._last_step is not None

    def status(self) -> EngineStatus:
        age = None if self._last_step is None else time.monotonic() - self._last_step
        return EngineStatus(
            self.name, "ready" if self.is_alive() else "dead", running=self._running, seconds_since_step=age
        )

    async def stop(self) -> None:
        self._last_step = None


class InstantEchoEngine(EchoEngine):
    """The echo engine without steps, as quick as can be. Satisfies :class:`CallbackEngine`."""

    def __init__(self, name: str, decode: Decode) -> None:
        super().__init__(name, decode)

    def begin(self, request: GenerationRequest, done: Done) -> None:
        done(self._at_once(request))

    def cancel(self, request_id: str) -> None:
        """There is nothing to abort: every prompt has ended when it has begun."""
