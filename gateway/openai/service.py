"""The way of one request of OpenAI's API behind its route: places, a ready model, samples, the answer's form."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.admission import Admission
from gateway.errors import BadValue, ModelFailed, UnknownModel
from gateway.metrics import Metrics
from gateway.middleware.context import RequestRecord
from gateway.openai.answers import AnswerForm, Choice, Usage
from gateway.openai.conversion import StreamWish, refusal
from gateway.settings import GatewaySettings
from gateway.triton.samples import RawLogprobs, SampleRequest, token_slices
from gateway.triton.sampling import Sampler
from gateway.triton.upstreams import Upstreams
from gateway.triton.wire import WireError
from gateway.turns import Turns

logger = logging.getLogger(__name__)

_DONE = b"data: [DONE]\n\n"
_DEFAULT_ROOM = 2048  # tokens, should the model not tell its length
_PAUSE = 32  # tokens with log probabilities worked on before other work, such as GET /, may run on the event loop
_NO_CHOICES = b'"choices":[]'  # inside a text its quotes would have backslashes


@dataclass(frozen=True)
class Job:
    """One request made ready: what the model is asked, and the form of the answer."""

    wanted: SampleRequest
    form: AnswerForm
    streaming: StreamWish


class OpenAIService:
    """Answers what the routes have read."""

    def __init__(
        self, settings: GatewaySettings, upstreams: Upstreams, admission: Admission, sampler: Sampler, metrics: Metrics
    ) -> None:
        self._limits = settings.limits
        self._upstreams = upstreams
        self._admission = admission
        self._sampler = sampler
        self._metrics = metrics
        self._turns = Turns(per_turn=1)  # however many answers are worked on, the loop looks around after each pause
        self.model_name = settings.served_model_name
        self.created = int(time.time())

    def check_model(self, name: str | None) -> None:
        """Raise :class:`UnknownModel` for a name that is not the served model's."""
        if name is not None and name != self.model_name:
            raise UnknownModel(
                f"the model {name[:80]!r} is not served here; {self.model_name!r} is",
                param="model",
                code="model_not_found",
            )

    async def whole(self, job: Job, record: RequestRecord) -> Sequence[bytes]:
        """The answer as one JSON object, in parts if it is large.

        Raises the :class:`GatewayError` that prevented it.
        """
        choices = [Choice() for _ in range(job.wanted.rows)]
        usage = Usage(job.wanted.n)
        with self._in_hand(job, record, usage):
            async for pieces in self._pieces(job.wanted):
                for piece in pieces:
                    choices[piece.row].add(piece)
                    usage.add(piece)
            if job.wanted.logprobs:
                return await self._parts(job, choices, usage)
        shown = [job.form.choice(row, choice) for row, choice in enumerate(choices)]
        return [orjson.dumps(job.form.whole(shown, usage))]

    async def _parts(self, job: Job, choices: Sequence[Choice], usage: Usage) -> Sequence[bytes]:
        """The answer with a part for each choice: log probabilities make a large one, and other work runs meanwhile."""
        head, name, tail = orjson.dumps(job.form.whole([], usage)).partition(_NO_CHOICES)
        parts = [head + name[:-1]]
        pace = _Pace(self._turns)
        for row, choice in enumerate(choices):
            await self._add_logprobs(job, row, choice.logprobs, pace)
            choice.logprobs.clear()
            parts.append((b"," if row else b"") + orjson.dumps(job.form.choice(row, choice)))
        return [*parts, name[-1:] + tail]

    async def _add_logprobs(self, job: Job, row: int, found: Iterable[RawLogprobs], pace: _Pace) -> None:
        for raw in found:
            for tokens in token_slices(raw):
                job.form.add_logprobs(row, tokens)
                await pace.worked(len(tokens.positions))

    async def events(self, job: Job, record: RequestRecord) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, ``[DONE]`` last."""
        usage = Usage(job.wanted.n)
        pace = _Pace(self._turns)
        with self._in_hand(job, record, usage):
            async with aclosing(self._pieces(job.wanted)) as found:
                async for pieces in found:
                    events: list[dict[str, Any]] = []
                    for piece in pieces:
                        usage.add(piece)
                        if piece.logprobs is not None:
                            await self._add_logprobs(job, piece.row, [piece.logprobs], pace)
                        events += job.form.events(piece)
                    if events:
                        yield b"".join([_event(event, job.streaming, usage) for event in events])
            if job.streaming.include_usage:
                yield b"data: " + orjson.dumps(job.form.usage_event(usage)) + b"\n\n"
            yield _DONE

    @contextmanager
    def _in_hand(self, job: Job, record: RequestRecord, usage: Usage) -> Iterator[None]:
        """Hold places while the request runs; its tokens are noted however it ends."""
        with self._admission.places(job.wanted.rows):
            self._metrics.prompts.inc(job.wanted.rows)
            try:
                yield
            except WireError as exc:
                logger.exception("request %s: the model's answer cannot be read", job.wanted.request_id)
                raise ModelFailed("the model failed on this request") from exc
            finally:
                record.prompt_tokens = usage.prompt_tokens
                record.completion_tokens = usage.completion_tokens

    async def _pieces(self, wanted: SampleRequest) -> AsyncGenerator[Any, None]:
        deadline = time.monotonic() + self._limits.request_timeout_s
        await self._upstreams.require_ready(self._limits, self._metrics)
        if "max_tokens" not in wanted.parameters:  # the answer may fill the model's length
            room = (await self._upstreams.properties()).get("max_model_len") or _DEFAULT_ROOM
            wanted = replace(wanted, parameters={**wanted.parameters, "max_tokens": room})
        try:
            async with aclosing(self._sampler.pieces(wanted, deadline)) as found:
                async for pieces in found:
                    yield pieces
        except BadValue as exc:
            raise refusal(exc, wanted) from exc


class _Pace:
    """Lets other work run whenever one request has worked on :data:`_PAUSE` tokens."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._tokens = 0

    async def worked(self, tokens: int) -> None:
        """Note work that is done; return when it may go on."""
        self._tokens += tokens
        if self._tokens >= _PAUSE:
            self._tokens = 0
            await self._turns.take()


def _event(event: dict[str, Any], streaming: StreamWish, usage: Usage) -> bytes:
    if streaming.include_usage:  # then every event has the field; null until the last, unless it is asked for
        event = {**event, "usage": usage.shown() if streaming.continuous_usage else None}
    return b"data: " + orjson.dumps(event) + b"\n\n"
