"""Answers with many log probabilities: made a slice at a time, and the same JSON as if made at once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import Admission
from gateway.errors import ModelFailed
from gateway.metrics import Metrics
from gateway.middleware.context import RequestRecord
from gateway.openai.answers import ChatForm, CompletionForm
from gateway.openai.conversion import StreamWish
from gateway.openai.logprobs import ChatLogprobs, CompletionLogprobs, chat_logprobs, completion_logprobs
from gateway.openai.service import Job, OpenAIService
from gateway.settings import GatewaySettings
from gateway.triton.samples import Piece, RawLogprobs, SampleRequest, TokenSlice, encode_samples, token_slices
from gateway.triton.sampling import Sampler
from gateway.triton.upstreams import Upstreams
from gateway.triton.wire import WireError

TOP = 3
SLICE = 32
TEXTS = ["a", "线程", '"', "\\", '{"1', '}},{"1":{"', "]", "[", ", ", "\n", "🙂", ""]

Tokens = list[tuple[int, str]]
Position = dict[str, dict[str, Any]]
positions_of_rows = st.lists(st.tuples(st.integers(0, 99_999), st.sampled_from(TEXTS) | st.text()), max_size=100)


def positions(tokens: Tokens) -> list[Position]:
    """What the model says of these tokens: the chosen one is second, the first is impossible."""
    return [
        {
            str(token_id + 1): {"logprob": None, "rank": 3, "decoded_token": text + '}},{"2":'},
            str(token_id): {"logprob": -0.25, "rank": 2, "decoded_token": text},
            str(token_id + 2): {"logprob": -1e-9, "rank": 1, "decoded_token": None},
        }
        for token_id, text in tokens
    ]


def ids(tokens: Tokens) -> list[int]:
    return [token_id for token_id, _ in tokens]


def some_tokens(count: int) -> Tokens:
    chance = random.Random(count)
    return [(chance.randrange(99_999), chance.choice(TEXTS)) for _ in range(count)]


def raw(tokens: Tokens, encode: Callable[[Any], bytes] = orjson.dumps) -> RawLogprobs:
    return RawLogprobs(memoryview(encode(positions(tokens))), memoryview(encode(ids(tokens))))


@pytest.mark.parametrize("encode", [orjson.dumps, lambda value: json.dumps(value).encode()], ids=["dense", "spaces"])
@given(tokens=positions_of_rows)
def test_slices_are_all_there_and_small(encode: Callable[[Any], bytes], tokens: Tokens) -> None:
    slices = list(token_slices(raw(tokens, encode)))
    assert [position for part in slices for position in part.positions] == positions(tokens)
    assert [token_id for part in slices for token_id in part.token_ids] == ids(tokens)
    assert all(len(part.positions) == len(part.token_ids) <= SLICE for part in slices)


@pytest.mark.parametrize("bad, token_ids", [(b'[{"1":{]', b"[1]"), (b'[{"1":{}},{"2":', b"[1,2]"), (b"[]", b"[1,2")])
def test_what_is_no_json_is_an_error_of_the_wire(bad: bytes, token_ids: bytes) -> None:
    with pytest.raises(WireError, match="log probabilities"):
        list(token_slices(RawLogprobs(bad, token_ids)))


@given(tokens=positions_of_rows)
def test_both_forms_are_what_they_would_be_at_once(tokens: Tokens) -> None:
    chat, completion = ChatLogprobs(TOP), CompletionLogprobs()
    for part in token_slices(raw(tokens)):
        chat.add(part)
        completion.add(part)
    assert orjson.dumps(chat.take()) == orjson.dumps(chat_logprobs(positions(tokens), ids(tokens), TOP))
    assert orjson.dumps(completion.take()) == orjson.dumps(completion_logprobs(positions(tokens), ids(tokens), 0))


def test_what_was_taken_is_not_shown_again_but_counts() -> None:
    completion = CompletionLogprobs()
    for text in ("ab", "c"):
        completion.add(TokenSlice(positions([(1, text)]), [1]))
        last = orjson.loads(orjson.dumps(completion.take()))
    assert (last["tokens"], last["text_offset"]) == (["c"], [2])


@pytest.mark.parametrize("stream, logprobs", [(False, True), (True, True), (False, False)])
def test_only_large_answers_may_come_in_several_responses(stream: bool, logprobs: bool) -> None:
    wanted = SampleRequest("text", [b"a"], {}, stream=stream, logprobs=logprobs)
    assert ("partial" in {tensor.name for tensor in encode_samples(wanted).inputs}) is (logprobs and not stream)


class ReadyUpstreams:
    """Always ready."""

    async def require_ready(self, *_: object) -> None:
        return


class PreparedSampler:
    """Hands on what it was given, for every request."""

    def __init__(self, *groups: Sequence[Piece]) -> None:
        self._groups = groups

    async def pieces(self, *_: object) -> AsyncIterator[Sequence[Piece]]:
        for group in self._groups:
            yield group


class LoopTurns:
    """Counts the turns of the event loop that other work gets."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


class WatchedForm(ChatForm):
    """Notes in which turn how many tokens were worked on."""

    def __init__(self, turns: LoopTurns, work: dict[int, int]) -> None:
        super().__init__("course", TOP)
        self._turns = turns
        self._work = work

    def add_logprobs(self, row: int, tokens: TokenSlice) -> None:
        self._work[self._turns.count] = self._work.get(self._turns.count, 0) + len(tokens.positions)
        super().add_logprobs(row, tokens)


def service_of(*groups: Sequence[Piece]) -> OpenAIService:
    settings = GatewaySettings()
    upstreams, sampler = cast("Upstreams", ReadyUpstreams()), cast("Sampler", PreparedSampler(*groups))
    return OpenAIService(settings, upstreams, Admission(settings.limits), sampler, Metrics())


def job_of(form: ChatForm | CompletionForm, rows: int, *, stream: bool = False) -> Job:
    wanted = SampleRequest("text", [b"a"], {"max_tokens": 9}, n=rows, stream=stream, logprobs=True)
    return Job(wanted, form, StreamWish(stream=stream, include_usage=False, continuous_usage=False))


async def answered(service: OpenAIService, job: Job) -> bytes:
    """The answer, streamed or not."""
    if job.streaming.stream:
        return b"".join([event async for event in service.events(job, RequestRecord("r"))])
    return b"".join(await service.whole(job, RequestRecord("r")))


def row(number: int, tokens: Tokens) -> Piece:
    return Piece(number, "".join(text for _, text in tokens), "length", 5, len(tokens), raw(tokens))


@pytest.mark.parametrize("stream", [False, True])
async def test_other_work_gets_its_turn_whatever_the_answers_size(stream: bool) -> None:
    rows, requests, length = 4, 3, 10 * SLICE
    service, turns, work = service_of([row(i, some_tokens(length)) for i in range(rows)]), LoopTurns(), {}

    jobs = [job_of(WatchedForm(turns, work), rows, stream=stream) for _ in range(requests)]
    others = asyncio.create_task(turns.run())
    await asyncio.gather(*(answered(service, job) for job in jobs))
    others.cancel()
    assert sum(work.values()) == rows * requests * length
    first, *later = work.values()
    assert first <= SLICE * (requests + 1)  # all of them begin at once
    assert max(later) <= SLICE


async def test_the_answer_is_the_same_json_as_made_at_once() -> None:
    found = [some_tokens(length) for length in (100, 0, 1)]
    service = service_of([row(0, found[0]), row(2, found[2])], [row(1, found[1])])
    form = ChatForm('a "choices":[] b', TOP)
    answer = await answered(service, job_of(form, 3))
    choices = [
        {
            "index": number,
            "message": {"role": "assistant", "content": "".join(text for _, text in tokens), "refusal": None},
            "logprobs": chat_logprobs(positions(tokens), ids(tokens), TOP),
            "finish_reason": "length",
        }
        for number, tokens in enumerate(found)
    ]
    usage = {"prompt_tokens": 5, "completion_tokens": 101, "total_tokens": 106}
    head = {name: orjson.loads(answer)[name] for name in ("id", "created", "model")}
    assert answer == orjson.dumps({**head, "object": "chat.completion", "choices": choices, "usage": usage})


async def test_completions_are_the_same_json_as_made_at_once() -> None:
    found = [some_tokens(length) for length in (70, 3)]
    service = service_of([row(number, tokens) for number, tokens in enumerate(found)])
    answer = await answered(service, job_of(CompletionForm("m", logprobs=True), 2))
    choices = [
        {
            "index": number,
            "text": "".join(text for _, text in tokens),
            "logprobs": completion_logprobs(positions(tokens), ids(tokens), 0),
            "finish_reason": "length",
        }
        for number, tokens in enumerate(found)
    ]
    usage = {"prompt_tokens": 5, "completion_tokens": 73, "total_tokens": 78}
    head = {name: orjson.loads(answer)[name] for name in ("id", "object", "created", "model")}
    assert answer == orjson.dumps({**head, "choices": choices, "usage": usage})


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_that_cannot_be_read_are_the_models_failure(stream: bool) -> None:
    service = service_of([Piece(0, "a", "stop", 1, 1, RawLogprobs(b'[{"1":{]', b"[1]"))])
    job = job_of(ChatForm("m", TOP), 1, stream=stream)
    with pytest.raises(ModelFailed):
        await answered(service, job)
