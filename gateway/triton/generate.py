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
from gateway.triton.upstreams import Upstream, Upstreams
from gateway.triton.wire import Completion, Conversations, RowError, WireError, decode_rows, encode_request

logger = logging.getLogger(__name__)

MAX_ROWS = 1024  # of one Triton request: the model works on them while the gateway makes the next one
_ATTEMPTS = 3  # a prompt that takes the model down each time must not do so for ever

Outcome = str | GatewayError
Finish = Callable[[int, Completion], str]
"""Makes the answer of a row's completion, as soon as that is there."""
Outcomes = list["Outcome | None"]


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
        missing: Sequence[int] = range(len(conversations.messages))
        outcomes: Outcomes = [None] * len(missing)
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._metrics.retries.inc(len(missing))
                logger.info("request %s: %d prompts are sent again", conversations.request_id, len(missing))
            if not await self._upstreams.wait_ready(deadline - time.monotonic()):
                return _filled(outcomes, DeadlineExceeded("the model did not come back in time"))
            upstream = self._upstreams.choose()
            if upstream is not None and self._shares and attempt == 0 and len(outcomes) == 1:
                await _submit_shared(upstream, conversations, outcomes, finish, deadline)
            elif upstream is not None:
                await _submit(upstream, conversations, missing, outcomes, finish, deadline)
            missing = [row for row in missing if outcomes[row] is None]
            if not missing:
                break
        return _filled(outcomes, ModelFailed("the model failed on this prompt repeatedly"))

    def share(self, rows: int) -> int:
        """Rows for one call of :meth:`generate`: an equal share for each ready server, at most :data:`MAX_ROWS`."""
        return max(1, min(-(-rows // max(self._upstreams.ready_count, 1)), MAX_ROWS))


async def _submit(
    upstream: Upstream,
    conversations: Conversations,
    rows: Sequence[int],
    outcomes: Outcomes,
    finish: Finish,
    deadline: float,
) -> None:
    """Send rows once. Those without an outcome afterwards were lost with the model and may be sent again."""
    sent_at = time.monotonic()
    upstream.prompts_in_flight += len(rows)
    try:
        request = encode_request(conversations, rows)
        async with aclosing(upstream.client.responses(request, deadline - sent_at)) as responses:
            async for response in responses:
                if _place(response, rows, outcomes, finish):
                    upstream.readiness.confirm(sent_at)
        if any(outcomes[row] is None for row in rows):
            raise UpstreamUnavailable("prompts were left without an answer")
    except UpstreamUnavailable as exc:
        upstream.readiness.suspect(exc.message)
    except WireError:
        logger.exception("request %s: the model's answer cannot be read", conversations.request_id)
        outcomes[:] = _filled(outcomes, ModelFailed("the model failed on this request"))
    except GatewayError as exc:
        outcomes[:] = _filled(outcomes, exc)
    finally:
        upstream.prompts_in_flight -= len(rows)


async def _submit_shared(
    upstream: Upstream, conversations: Conversations, outcomes: Outcomes, finish: Finish, deadline: float
) -> None:
    """The same for a single prompt, which may share its request with others."""
    single = Single(conversations.messages[0], conversations.sampling_parameters[0], conversations.request_id)
    upstream.prompts_in_flight += 1
    try:
        outcome = await upstream.shared.outcome(single, deadline)
        outcomes[0] = finish(0, outcome) if isinstance(outcome, Completion) else outcome
    finally:
        upstream.prompts_in_flight -= 1


def _place(response: Any, rows: Sequence[int], outcomes: Outcomes, finish: Finish) -> bool:
    """Put the answers of one response where they belong; whether any row of it is a completion."""
    completed = False
    for index, row in decode_rows(response):
        if index >= len(rows):
            raise WireError(f"row {index} of {len(rows)}")
        if not isinstance(row, RowError):
            outcomes[rows[index]] = finish(rows[index], row)
            completed = True
            continue
        error = error_of_model(row.code, row.message)
        if not isinstance(error, UpstreamUnavailable):
            outcomes[rows[index]] = error
    return completed


def _filled(outcomes: Outcomes, error: GatewayError) -> list[Outcome]:
    """The outcomes, with this one for rows that have none yet."""
    return [error if outcome is None else outcome for outcome in outcomes]
