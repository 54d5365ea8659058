"""The way of one request of OpenAI's API behind its route: places, a ready model, samples, the answer's form."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gateway.admission import Admission
from gateway.errors import BadValue, UnknownModel
from gateway.metrics import Metrics
from gateway.middleware.context import RequestRecord
from gateway.openai.answers import AnswerForm, Choice, Usage
from gateway.openai.conversion import StreamWish, refusal
from gateway.settings import GatewaySettings
from gateway.triton.samples import SampleRequest
from gateway.triton.sampling import Sampler
from gateway.triton.upstreams import Upstreams

_DONE = b"data: [DONE]\n\n"
_DEFAULT_ROOM = 2048  # tokens, should the model not tell its length


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

    async def whole(self, job: Job, record: RequestRecord) -> dict[str, Any]:
        """The answer as one object. Raises the :class:`GatewayError` that prevented it."""
        choices = [Choice() for _ in range(job.wanted.rows)]
        usage = Usage(job.wanted.n)
        with self._in_hand(job, record, usage):
            async for pieces in self._pieces(job.wanted):
                for piece in pieces:
                    choices[piece.row].add(piece)
                    usage.add(piece)
        return job.form.whole(choices, usage)

    async def events(self, job: Job, record: RequestRecord) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, ``[DONE]`` last."""
        usage = Usage(job.wanted.n)
        with self._in_hand(job, record, usage):
            async with aclosing(self._pieces(job.wanted)) as found:
                async for pieces in found:
                    events: list[dict[str, Any]] = []
                    for piece in pieces:
                        usage.add(piece)
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
            raise refusal(exc, wanted.kind) from exc


def _event(event: dict[str, Any], streaming: StreamWish, usage: Usage) -> bytes:
    if streaming.include_usage:  # then every event has the field; null until the last, unless it is asked for
        event = {**event, "usage": usage.shown() if streaming.continuous_usage else None}
    return b"data: " + orjson.dumps(event) + b"\n\n"
