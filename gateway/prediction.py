"""The way of one ``/predict`` request behind its route: places, messages and budgets, generation, answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import orjson

from gateway.admission import Admission
from gateway.errors import BadValue, GatewayError
from gateway.metrics import Metrics
from gateway.policy.answer import finish_answer
from gateway.policy.budget import BudgetPolicy, Plan
from gateway.policy.messages import MessageEncoder, SystemPrompt
from gateway.policy.sampling import SamplingEncoder, SamplingOptions
from gateway.policy.streaming import StreamedAnswer
from gateway.settings import GatewaySettings
from gateway.triton.generate import Generator, Outcome
from gateway.triton.samples import SampleRequest
from gateway.triton.sampling import Sampler
from gateway.triton.upstreams import Upstreams
from gateway.triton.wire import Completion, Conversations
from gateway.turns import Turns

_SLICE = 256  # prompts worked on before other work, such as GET /, may run on the event loop


@dataclass(frozen=True)
class Questions:
    """What one request asks: prompts, and the options for all of them."""

    prompts: Sequence[str]
    options: SamplingOptions
    system_prompt: str | None = None
    request_id: str = ""


@dataclass
class Prediction:
    """One answer, or what went wrong, for each prompt, in order; and what it cost in tokens."""

    answers: list[str | GatewayError]
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def failed(self) -> int:
        """How many prompts have no answer."""
        return sum(isinstance(answer, GatewayError) for answer in self.answers)


class Delta(NamedTuple):
    """New text of an answer that is streamed."""

    text: str


class FinalAnswer(NamedTuple):
    """The end of an answer that is streamed: all of it. ``finish_reason`` is ``"stop"`` or ``"length"``."""

    text: str
    finish_reason: str


class Encoders(NamedTuple):
    """What is the same for all questions of a request: how they are put to the model."""

    messages: MessageEncoder
    sampling: SamplingEncoder


class Predictor:
    """Answers questions by the answer policy."""

    def __init__(
        self,
        settings: GatewaySettings,
        upstreams: Upstreams,
        system_prompt: SystemPrompt,
        turns: Turns,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._upstreams = upstreams
        self._system_prompt = system_prompt
        self._turns = turns
        self._budget = BudgetPolicy(settings.budget)
        self._metrics = metrics or Metrics()
        # Traces tell of each call whose request it is; a shared one would have several owners.
        self._generator = Generator(upstreams, self._metrics, shares=settings.otlp_endpoint is None)
        self._sampler = Sampler(upstreams, self._metrics)
        self.admission = Admission(settings.limits)

    async def predict(self, questions: Questions) -> Prediction:
        """Answer all questions; cancelling stops their generation.

        Raises:
            BadValue, TooLarge, QueueFull: the request is refused as a whole.
            NotReady: no model was ready within READY_TIMEOUT_S.
        """
        deadline = time.monotonic() + self._settings.limits.request_timeout_s
        questions.options.check()
        with self._in_hand(len(questions.prompts)):
            asked = [place for place, prompt in enumerate(questions.prompts) if not _is_blank(prompt)]
            answers: list[str | GatewayError] = [BadValue("the prompt is empty")] * len(questions.prompts)
            prediction = Prediction(answers)
            if asked:
                outcomes = await self._generate(questions, asked, prediction, deadline)
                await self._turns.take()  # many answers can come at once
                for place, outcome in zip(asked, outcomes, strict=True):
                    answers[place] = outcome
            self._metrics.failed_prompts.inc(prediction.failed)
            return prediction

    @contextmanager
    def _in_hand(self, prompts: int) -> Iterator[None]:
        """Hold places while the request runs. What ends it as a whole has failed all of them."""
        with self.admission.places(prompts):
            self._metrics.prompts.inc(prompts)
            try:
                yield
            except GatewayError:
                self._metrics.failed_prompts.inc(prompts)
                raise

    async def _generate(
        self, questions: Questions, asked: Sequence[int], prediction: Prediction, deadline: float
    ) -> list[Outcome]:
        """Generate the answers in shares: the model works on the first while the next are prepared."""
        encoders = self._encoders(questions)
        await self._upstreams.require_ready(self._settings.limits, self._metrics)
        size = self._generator.share(len(asked))
        shares: list[asyncio.Future[list[Outcome]]] = []
        try:
            for start in range(0, len(asked), size):
                plans, conversations = await self._prepare(questions, encoders, asked[start : start + size])
                finish = partial(self._finish, plans, prediction)
                work = self._generator.generate(conversations, finish, deadline)
                if start + size >= len(asked):
                    last = await work
                else:
                    shares.append(asyncio.ensure_future(work))
                    await asyncio.sleep(0)  # it goes out before the next is made
            return [*chain.from_iterable(await asyncio.gather(*shares)), *last]
        finally:
            for share in shares:
                share.cancel()

    def _encoders(self, questions: Questions) -> Encoders:
        """One request has one system prompt, whenever its parts are prepared."""
        return Encoders(
            self._system_prompt.encoder(questions.system_prompt),
            SamplingEncoder(self._settings.sampling, questions.options),
        )

    async def _prepare(
        self, questions: Questions, encoders: Encoders, asked: Sequence[int]
    ) -> tuple[list[Plan], Conversations]:
        plans: list[Plan] = []
        encoded: list[bytes] = []
        for part in _slices(len(asked)):
            for i in part:
                prompt = questions.prompts[asked[i]]
                plans.append(self._budget.plan(prompt, questions.options.max_new_tokens))
                encoded.append(encoders.messages.encode(prompt))
            await _let_others_run(part, len(asked))
        parameters = [encoders.sampling.encode(plan.max_tokens) for plan in plans]
        return plans, Conversations(encoded, parameters, questions.request_id)

    async def stream(self, questions: Questions, usage: Prediction) -> AsyncGenerator[Delta | FinalAnswer, None]:
        """Answer one question piece by piece; closing or cancelling stops its generation.

        ``usage`` takes the tokens that it cost. Raises as :meth:`predict`, and the error that ended the generation.
        """
        deadline = time.monotonic() + self._settings.limits.request_timeout_s
        questions.options.check()
        if _is_blank(questions.prompts[0]):
            raise BadValue("the prompt is empty")
        with self._in_hand(1):
            (plan,), asked = await self._prepare(questions, self._encoders(questions), [0])
            await self._upstreams.require_ready(self._settings.limits, self._metrics)
            opens_think = bool((await self._upstreams.properties()).get("opens_think"))
            answer = StreamedAnswer(plan, self._settings.answer, opens_think=opens_think)
            wanted = SampleRequest(
                kind="messages",
                inputs=asked.messages,
                parameters=orjson.loads(asked.sampling_parameters[0]),
                stream=True,
                request_id=asked.request_id,
            )
            finish_reason = ""
            async with aclosing(self._sampler.pieces(wanted, deadline)) as found:
                async for pieces in found:
                    for piece in pieces:
                        usage.prompt_tokens = piece.num_input_tokens
                        usage.completion_tokens += piece.num_output_tokens
                        finish_reason = piece.finish_reason
                        if delta := answer.add(piece.text):
                            yield Delta(delta)
            rest, whole = answer.finish()
            if rest:
                yield Delta(rest)
            yield FinalAnswer(whole, finish_reason)

    def _finish(self, plans: Sequence[Plan], prediction: Prediction, row: int, completion: Completion) -> str:
        prediction.prompt_tokens += completion.num_input_tokens
        prediction.completion_tokens += completion.num_output_tokens
        return finish_answer(completion.text, plans[row], self._settings.answer)


def _is_blank(prompt: str) -> bool:
    return not prompt or prompt.isspace()


def _slices(total: int) -> Iterator[range]:
    for start in range(0, total, _SLICE):
        yield range(start, min(start + _SLICE, total))


async def _let_others_run(part: range, total: int) -> None:
    if part.stop < total:
        await asyncio.sleep(0)
