"""From one call to its rows: generate with the engine pool, decode whole batches, answer in order or as it comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from functools import partial

import msgspec

from .adapters import Adapters
from .engines.base import Done, GenerationRequest, Outcome, Sample
from .engines.pool import EnginePool
from .engines.prompt_run import PromptRun
from .errors import GenerationFailed, InvalidArgument, ModelError
from .finished import FinishedPrompt, FinishedPrompts
from .logs import logger
from .parameters import SamplingParameters
from .pieces import ready_pieces
from .prompts import SLICE, Prompt, PromptBuilder
from .rows import InferenceCall, Row
from .tokenization import Tokenization

_PARTIAL_INTERVAL_S = 0.02  # finished rows of a partial call wait this long for others
_PARTIAL_ROWS = 128  # at most, in one response: the caller reads some while the next are decoded
_LOGPROB_TOKENS = 4096  # with log probabilities, some six megabytes

SINGLE, BATCH = 0, 1  # priorities: single prompts go before the waiting rows of a large batch


class Generator:
    """Turns calls into rows, on the event loop of the engine pool."""

    def __init__(
        self, pool: EnginePool, tokenization: Tokenization, max_model_len: int, adapters: Adapters | None = None
    ) -> None:
        self._pool = pool
        self._tokenization = tokenization
        self._prompts = PromptBuilder(tokenization, max_model_len, adapters or Adapters())

    async def run(self, call: InferenceCall) -> AsyncGenerator[list[Row], None]:
        """Yield the rows of a call: all at once, in groups as they finish (``partial``), or as tokens come.

        Raises the :class:`ModelError` of a call that does not report errors by row.
        """
        samples_per_prompt = _common_n(call)
        produce = self._stream_all if call.stream else self._finish_all
        async with contextlib.aclosing(produce(call, samples_per_prompt)) as groups:
            async for rows in groups:
                if not call.reports_row_errors:
                    _raise_first_error(rows)
                yield rows

    async def _made(self, call: InferenceCall) -> AsyncIterator[list[tuple[int, Prompt | ModelError]]]:
        """Enumerate the prompts as they are made, a slice at a time; between slices other work may run."""
        position = 0
        async with contextlib.aclosing(self._prompts.build(call)) as chunks:
            async for chunk in chunks:
                for start in range(0, len(chunk), SLICE):
                    if position:
                        await asyncio.sleep(0)
                    made = chunk[start : start + SLICE]
                    yield list(enumerate(made, position))
                    position += len(made)

    # Unstreamed: every prompt to its end

    async def _finish_all(self, call: InferenceCall, n: int) -> AsyncGenerator[list[Row], None]:
        """Yield finished rows: all in the call's order, or, for ``partial``, groups in the order they finish."""
        finished = FinishedPrompts()
        runs: list[PromptRun] = []
        priority = _priority(call)
        try:
            async for made in self._made(call):
                for position, item in made:
                    if isinstance(item, ModelError):
                        finished.add(FinishedPrompt(position, None, error=item))
                prompts = [(position, item) for position, item in made if isinstance(item, Prompt)]
                orders = [self._order(*prompt, priority, finished) for prompt in prompts]
                begun = self._pool.begin_all(orders, on_each=call.on_each_engine)
                runs += begun
                if call.row_key:
                    for (position, _), run in zip(prompts, begun, strict=True):
                        call.cancellable_rows.add(position, partial(_give_up, run, position, finished))
            remaining = len(call.inputs)
            while remaining:
                group = await finished.group(remaining, _interval_s(call))
                remaining -= len(group)
                size = _PARTIAL_ROWS if call.partial else len(group)
                for first in range(0, len(group), size):
                    for rows in _responses(call, self._rows(call, group[first : first + size], n)):
                        yield rows
                        await asyncio.sleep(0)
        finally:
            for run in runs:
                run.cancel()

    def _order(
        self, position: int, prompt: Prompt, priority: int, finished: FinishedPrompts
    ) -> tuple[GenerationRequest, Done]:
        """What the pool is to run, and who is told how it ends."""

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Exception):
                finished.add(FinishedPrompt(position, prompt, error=_as_model_error(outcome)))
            else:
                finished.add(FinishedPrompt(position, prompt, outcome))

        params = prompt.params
        needs_text = bool(params.stop) or params.logprobs is not None or self._tokenization.needs_context
        return self._request(prompt, priority, detokenize=needs_text), done

    def _request(self, prompt: Prompt, priority: int, *, detokenize: bool) -> GenerationRequest:
        params = prompt.params
        if params.n > 1 and params.temperature == 0:  # vLLM refuses it; greedy samples are all the same
            params = msgspec.structs.replace(params, n=1)
        request_id = self._pool.next_request_id()
        return GenerationRequest(request_id, prompt.token_ids, params, detokenize, priority, prompt.adapter)

    def _rows(self, call: InferenceCall, finished: Sequence[FinishedPrompt], n: int) -> list[Row]:
        """Make output rows of finished prompts, decoding all their token ids in one batch call."""
        texts = iter(self._decode(finished))
        rows: list[Row] = []
        for done in finished:
            first = done.position * n
            if done.error is not None or done.prompt is None:
                error = done.error or GenerationFailed("the prompt was lost")
                rows.extend(Row.of_error(first + i, error) for i in range(n))
                continue
            before = done.prompt.text if call.echo_input else ""
            prompt_len = len(done.prompt.token_ids)
            made = [Row.of_sample(first + s.index, s, before + next(texts), prompt_len) for s in done.samples]
            rows.extend(_repeat(made, first, n))
        return rows

    def _decode(self, finished: Sequence[FinishedPrompt]) -> list[str]:
        """The text of every sample, in order; only those that the engine did not detokenize are decoded here."""
        samples = [(sample, done.prompt.params) for done in finished if done.prompt for sample in done.samples]
        texts = [sample.text or "" for sample, _ in samples]
        for skip in (True, False):
            places = [i for i, (s, p) in enumerate(samples) if s.text is None and p.skip_special_tokens is skip]
            if places:
                ids = [visible_token_ids(*samples[place]) for place in places]
                for place, text in zip(places, self._tokenization.decode(ids, skip_special_tokens=skip), strict=True):
                    texts[place] = text
        return texts

    # Streamed: pieces as they come

    async def _stream_all(self, call: InferenceCall, n: int) -> AsyncGenerator[list[Row], None]:
        """Yield pieces of all prompts as they come, those of one moment together."""
        pieces: asyncio.Queue[list[Row] | None] = asyncio.Queue()

        async def pump(position: int, item: Prompt | ModelError) -> None:
            try:
                async for rows in self._stream_one(position, item, n, _priority(call)):
                    pieces.put_nowait(rows)
            except Exception as exc:  # noqa: BLE001 - the row's error, whatever it is
                error = _as_model_error(exc)
                pieces.put_nowait([Row.of_error(position * n + i, error) for i in range(n)])
            finally:
                pieces.put_nowait(None)

        tasks: list[asyncio.Task[None]] = []
        try:
            async for made in self._made(call):
                tasks += [asyncio.create_task(pump(position, item)) for position, item in made]
            remaining = len(tasks)
            while remaining:
                group, ended = await ready_pieces(pieces)
                remaining -= ended
                for rows in group:
                    yield rows
        finally:
            for task in tasks:
                task.cancel()

    async def _stream_one(
        self, position: int, item: Prompt | ModelError, n: int, priority: int
    ) -> AsyncIterator[list[Row]]:
        if isinstance(item, ModelError):
            raise item
        first = position * n
        async for samples in self._pool.stream(self._request(item, priority, detokenize=True)):
            made = [Row.of_sample(first + s.index, s, s.text or "", len(item.token_ids)) for s in samples]
            yield _repeat(made, first, n) if item.params.temperature == 0 else made


def _give_up(run: PromptRun, position: int, finished: FinishedPrompts) -> None:
    if run.cancel():
        finished.add(FinishedPrompt(position, None, error=GenerationFailed("the row was cancelled")))


def _responses(call: InferenceCall, rows: list[Row]) -> Iterator[list[Row]]:
    """The rows as they go out: together, or with log probabilities and ``partial`` so many tokens at a time.

    Each token then has up to 20 others beside it, and megabytes in one piece hold up those who read them.
    """
    if not (call.partial and call.flags.logprobs):
        yield rows
        return
    first = tokens = 0
    for place, row in enumerate(rows):
        if tokens and tokens + len(row.token_ids) > _LOGPROB_TOKENS:
            yield rows[first:place]
            first, tokens = place, 0
        tokens += len(row.token_ids)
    yield rows[first:]


def _interval_s(call: InferenceCall) -> float | None:
    """How long finished rows wait for others; ``None``: for all of them."""
    if not call.partial:
        return None
    return 0 if call.holds_singles else _PARTIAL_INTERVAL_S


def visible_token_ids(sample: Sample, params: SamplingParameters) -> list[int]:
    """The token ids that show: a stop token at the end does not, as in vLLM's own detokenizer."""
    if sample.finish_reason == "stop" and sample.token_ids and not params.include_stop_str_in_output:
        return sample.token_ids[:-1]
    return sample.token_ids


def _as_model_error(exc: Exception) -> ModelError:
    """What the caller is told of a failed row; the unexpected goes to the log, not to the caller."""
    if isinstance(exc, ModelError):
        return exc.detached()
    logger.error("a prompt failed unexpectedly", exc_info=exc)
    return GenerationFailed("the model failed on this prompt")


def _raise_first_error(rows: Sequence[Row]) -> None:
    for row in rows:
        if row.error is not None:
            raise row.error


def _repeat(rows: list[Row], first: int, n: int) -> list[Row]:
    """Repeat the one row of a greedy prompt for each of the ``n`` samples asked for."""
    if len(rows) != 1 or n == 1:
        return rows
    return [msgspec.structs.replace(rows[0], index=first + i) for i in range(n)]


def _common_n(call: InferenceCall) -> int:
    """Samples a prompt; the same for all rows of a call, as ``index`` counts prompt · n + sample."""
    found = {params.n for params in call.params if isinstance(params, SamplingParameters)}
    if len(found) > 1:
        raise InvalidArgument(f"sampling_parameters: 'n' has values {sorted(found)}. Allowed is one for all prompts")
    return found.pop() if found else 1


def _priority(call: InferenceCall) -> int:
    return SINGLE if call.holds_singles else BATCH
