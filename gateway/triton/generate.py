"""Generation: one Triton request for a batch, finished rows kept, only missing ones sent again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from gateway.errors import DeadlineExceeded, GatewayError, ModelFailed, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.triton.client import error_of_model
from gateway.triton.sharing import Single
from gateway.triton.upstreams import ATTEMPTS, Upstream, Upstreams
from gateway.triton.wire import Completion, Conversations, RowError, WireError, decode_rows, encode_request

logger = logging.getLogger(__name__)

MAX_ROWS = 1024  # of one Triton request: the model works on them while the gateway makes the next one

Outcome = str | GatewayError
Finish = Callable[[int, Completion], str]
"""Makes the answer of a row's completion, as soon as that is there."""


class _Batch:
    """Conversations on their way to an outcome each."""

    def __init__(self, conversations: Conversations, finish: Finish, deadline: float) -> None:
        self.conversations = conversations
        self.deadline = deadline
        self._finish = finish
        self._outcomes: list[Outcome | None] = [None] * len(conversations.messages)

    def missing(self) -> list[int]:
        """The rows without an outcome."""
        return [row for row, outcome in enumerate(self._outcomes) if outcome is None]

    def place(self, row: int, found: Completion | GatewayError) -> None:
        """Put an outcome where it belongs."""
        self._outcomes[row] = self._finish(row, found) if isinstance(found, Completion) else found

    def fail(self, error: GatewayError) -> None:
        """Make this the outcome of all rows that are missing."""
        for row in self.missing():
            self._outcomes[row] = error

    def outcomes(self) -> list[Outcome]:
        """All of them, once none is missing."""
        return [outcome for outcome in self._outcomes if outcome is not None]


class Generator:
    """Answers conversations with whichever Triton is ready."""

    def __init__(self, upstreams: Upstreams, metrics: Metrics, *, shares: bool = True) -> None:
        """``shares``: single prompts of several callers may go out as one request."""
        self._upstreams = upstreams
        self._metrics = metrics
        self._shares = shares

    async def generate(self, conversations: Conversations, finish: Finish, deadline: float) -> list[Outcome]:
        """Return an answer, or what went wrong, for each conversation, in order.

        ``deadline`` (``time.monotonic``) ends the wait: what is finished by then is returned. Cancelling stops the
        generation. Rows that were lost with their Triton are sent again when one is ready.
        """
        batch = _Batch(conversations, finish, deadline)
        for attempt in range(ATTEMPTS):
            missing = batch.missing()
            if not missing:
                break
            if attempt:
                self._metrics.retries.inc(len(missing))
                logger.info("request %s: %d prompts are sent again", conversations.request_id, len(missing))
            if not await self._upstreams.wait_ready(deadline - time.monotonic()):
                batch.fail(DeadlineExceeded("the model did not come back in time"))
                break
            upstream = self._upstreams.choose()
            if self._shares and attempt == 0 and len(conversations.messages) == 1:
                await _submit_shared(upstream, batch)
            else:
                await _submit(upstream, batch, missing)
        batch.fail(ModelFailed("the model failed on this prompt repeatedly"))
        return batch.outcomes()

    def share(self, rows: int) -> int:
        """Rows for one call of :meth:`generate`: an equal share for each ready server, at most :data:`MAX_ROWS`."""
        return max(1, min(-(-rows // max(self._upstreams.ready_count, 1)), MAX_ROWS))


async def _submit(upstream: Upstream, batch: _Batch, rows: Sequence[int]) -> None:
    """Send rows once. Those that are missing afterwards were lost with the model and may be sent again."""
    sent_at = time.monotonic()
    upstream.prompts_in_flight += len(rows)
    try:
        request = encode_request(batch.conversations, rows)
        async with aclosing(upstream.client.responses(request, batch.deadline - sent_at)) as responses:
            async for response in responses:
                if _place(response, rows, batch):
                    upstream.readiness.confirm(sent_at)
        if batch.missing():
            raise UpstreamUnavailable("prompts were left without an answer")
    except UpstreamUnavailable as exc:
        upstream.readiness.suspect(exc.message)
    except WireError:
        logger.exception("request %s: the model's answer cannot be read", batch.conversations.request_id)
        batch.fail(ModelFailed("the model failed on this request"))
    except GatewayError as exc:
        batch.fail(exc)
    finally:
        upstream.prompts_in_flight -= len(rows)


async def _submit_shared(upstream: Upstream, batch: _Batch) -> None:
    """The same for a single prompt, which may share its request with others."""
    asked = batch.conversations
    upstream.prompts_in_flight += 1
    try:
        single = Single(asked.messages[0], asked.sampling_parameters[0], asked.request_id)
        if (found := await upstream.shared.outcome(single, batch.deadline)) is not None:
            batch.place(0, found)
    finally:
        upstream.prompts_in_flight -= 1


def _place(response: Any, rows: Sequence[int], batch: _Batch) -> bool:
    """Put the rows of one response where they belong; whether any of them is a completion."""
    completed = False
    for index, row in decode_rows(response):
        if index >= len(rows):
            raise WireError(f"row {index} of {len(rows)}")
        if not isinstance(row, RowError):
            batch.place(rows[index], row)
            completed = True
            continue
        error = error_of_model(row.code, row.message)
        if not isinstance(error, UpstreamUnavailable):
            batch.place(rows[index], error)
    return completed
