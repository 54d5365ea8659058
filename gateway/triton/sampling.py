"""Samples from whichever Triton is ready; sent again only while nothing has been handed on."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from gateway.errors import DeadlineExceeded, GatewayError, ModelFailed, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.triton.client import error_of_model
from gateway.triton.samples import Piece, SampleRequest, decode_pieces, encode_samples
from gateway.triton.upstreams import ATTEMPTS, Upstream, Upstreams
from gateway.triton.wire import WireError

logger = logging.getLogger(__name__)

Pieces = AsyncGenerator[Sequence[Piece], None]


class Sampler:
    """Asks for samples. A row's error is the request's: the callers' protocols have no place for it."""

    def __init__(self, upstreams: Upstreams, metrics: Metrics) -> None:
        self._upstreams = upstreams
        self._metrics = metrics

    async def pieces(self, wanted: SampleRequest, deadline: float) -> Pieces:
        """Yield pieces as they come, of a request that is not streamed all at its end.

        Closing or cancelling stops the generation.
        ``deadline`` is of ``time.monotonic``. Raises the :class:`GatewayError` that ended the request.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                self._metrics.retries.inc(len(wanted.inputs))
                logger.info("request %s: %d prompts are sent again", wanted.request_id, len(wanted.inputs))
            if not await self._upstreams.wait_ready(deadline - time.monotonic()):
                raise DeadlineExceeded("the model did not come back in time")
            upstream = self._upstreams.choose()
            handed_on = False
            try:
                sent = _submit(upstream, wanted, deadline)
                async with aclosing(sent if wanted.stream else _together(sent)) as found:
                    async for pieces in found:
                        handed_on = True
                        yield pieces
                return
            except UpstreamUnavailable:
                if handed_on:
                    raise
        raise ModelFailed("the model failed on this request repeatedly")


async def _submit(upstream: Upstream, wanted: SampleRequest, deadline: float) -> Pieces:
    """Send the request once; the stream must bring every row to its end."""
    sent_at = time.monotonic()
    unfinished = set(range(wanted.rows))
    upstream.prompts_in_flight += wanted.rows
    try:
        async with aclosing(upstream.client.responses(encode_samples(wanted), deadline - sent_at)) as responses:
            async for response in responses:
                pieces = decode_pieces(response)
                _raise_first_error(pieces)
                upstream.readiness.confirm(sent_at)
                unfinished.difference_update(piece.row for piece in pieces if piece.finish_reason)
                yield pieces
        if unfinished:
            raise UpstreamUnavailable("prompts were left without an answer")
    except UpstreamUnavailable as exc:
        upstream.readiness.suspect(exc.message)
        raise
    except WireError as exc:
        logger.exception("request %s: the model's answer cannot be read", wanted.request_id)
        raise ModelFailed("the model failed on this request") from exc
    finally:
        upstream.prompts_in_flight -= wanted.rows


async def _together(sent: Pieces) -> Pieces:
    """All pieces at the end: until then the request can be sent again."""
    async with aclosing(sent):
        yield [piece async for pieces in sent for piece in pieces]


def _raise_first_error(pieces: Sequence[Piece]) -> None:
    errors: list[GatewayError] = [
        error_of_model(piece.error.code, piece.error.message) for piece in pieces if piece.error is not None
    ]
    if errors:
        raise errors[0]
