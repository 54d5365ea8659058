"""Single prompts of many callers that come at the same moment, sent to a server as one request.

A request costs gRPC, Triton and its Python stub much more than a prompt does. The rows stay independent: each goes
before batches, is answered when it is finished, and ends alone when its caller goes away. What goes wrong with the
request as a whole leaves rows without an outcome; their callers then send them alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, NamedTuple

from gateway.errors import DeadlineExceeded, GatewayError, ModelFailed, UpstreamUnavailable
from gateway.readiness import Readiness
from gateway.triton.client import TritonClient, error_of_model
from gateway.triton.wire import (
    Completion,
    Conversations,
    RowError,
    WireError,
    decode_rows,
    encode_cancellation,
    encode_request,
)

logger = logging.getLogger(__name__)

MAX_ROWS = 64
_SAME_DEADLINE_S = 0.5  # rows of one request end together; one that may take longer does not share it
_BUSY = 16  # with so many prompts in flight nobody notices that a request waits for company
_GATHER_S = 0.001
_CANCEL_AFTER_S = 0.05  # several callers may leave together; and by then the request has reached the model
_CANCEL_TIMEOUT_S = 2.0

RowOutcome = Completion | GatewayError
"""How a row ended; in its place ``None`` stands for a row that was lost."""


class Single(NamedTuple):
    """One prompt of one caller."""

    message: bytes
    sampling_parameters: bytes
    request_id: str


class SharedCalls:
    """Gathers single prompts for one server."""

    def __init__(self, client: TritonClient, readiness: Readiness) -> None:
        self.client = client
        self.readiness = readiness
        self._gathering: _Call | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    async def outcome(self, single: Single, deadline: float) -> RowOutcome | None:
        """Send one prompt together with others. Cancelling stops the generation of this prompt and of no other."""
        call = self._call_for(deadline)
        row = call.add(single)
        self._waiting += 1
        try:
            return await call.outcomes[row]
        except asyncio.CancelledError:
            call.abandon(row)
            raise
        finally:
            self._waiting -= 1

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a part of a call in a task of its own, until :meth:`close`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _call_for(self, deadline: float) -> _Call:
        call = self._gathering
        if call is None or not call.has_room(deadline):
            call = self._gathering = _Call(self, deadline)
            loop = asyncio.get_running_loop()
            if self._waiting < _BUSY:
                loop.call_soon(self._send, call)  # with what comes in this turn of the loop
            else:
                loop.call_later(_GATHER_S, self._send, call)
        return call

    def _send(self, call: _Call) -> None:
        if self._gathering is call:
            self._gathering = None
        call.begin()


class _Call:
    """One request and its rows. ``outcomes`` has a future for each row: how it ended, ``None`` if it was lost."""

    def __init__(self, owner: SharedCalls, deadline: float) -> None:
        self._owner = owner
        self._deadline = deadline
        self._key = uuid.uuid4().hex
        self._singles: list[Single] = []
        self.outcomes: list[asyncio.Future[RowOutcome | None]] = []
        self._task: asyncio.Task[None] | None = None
        self._abandoned: list[int] = []
        self._cancels = False

    def has_room(self, deadline: float) -> bool:
        return len(self._singles) < MAX_ROWS and abs(deadline - self._deadline) < _SAME_DEADLINE_S

    def add(self, single: Single) -> int:
        """Take a row on; returns its place."""
        self._singles.append(single)
        self.outcomes.append(asyncio.get_running_loop().create_future())
        return len(self._singles) - 1

    def begin(self) -> None:
        """Send the request, unless all callers have gone away already."""
        if not self._is_over():
            self._task = self._owner.start(self._run())
            self._cancel_soon()

    def abandon(self, row: int) -> None:
        """The caller of a row has gone away."""
        self._abandoned.append(row)
        if self._task is not None and self._is_over():
            self._task.cancel()  # ends the stream, and with it all that is left
        else:
            self._cancel_soon()

    def _is_over(self) -> bool:
        return all(outcome.done() for outcome in self.outcomes)

    async def _run(self) -> None:
        sent_at = time.monotonic()
        try:
            await self._receive(sent_at)
        except UpstreamUnavailable as exc:
            self._owner.readiness.suspect(exc.message)
        except WireError:
            logger.exception("request %s: the model's answer cannot be read", self._request_id())
            self._end_all(ModelFailed("the model failed on this request"))
        except DeadlineExceeded as exc:
            self._end_all(exc)
        except GatewayError as exc:
            # Whose fault it is only shows when each is sent alone.
            self._end_all(exc if len(self._singles) == 1 else None)
        finally:
            self._end_all(None)

    async def _receive(self, sent_at: float) -> None:
        request = self._encode()
        async with aclosing(self._owner.client.responses(request, self._deadline - sent_at)) as responses:
            async for response in responses:
                for index, row in decode_rows(response):
                    if index >= len(self.outcomes):
                        raise WireError(f"row {index} of {len(self.outcomes)}")
                    self._place(index, row, sent_at)
        if not self._is_over():
            raise UpstreamUnavailable("prompts were left without an answer")

    def _place(self, index: int, row: Completion | RowError, sent_at: float) -> None:
        if isinstance(row, Completion):
            self._owner.readiness.confirm(sent_at)
            _end(self.outcomes[index], row)
            return
        error = error_of_model(row.code, row.message)
        if isinstance(error, UpstreamUnavailable):
            self._owner.readiness.suspect(error.message)
        _end(self.outcomes[index], None if isinstance(error, UpstreamUnavailable) else error)

    def _encode(self) -> Any:
        conversations = Conversations(
            [single.message for single in self._singles],
            [single.sampling_parameters for single in self._singles],
            self._request_id(),
        )
        rows = range(len(self._singles))
        return encode_request(conversations, rows, self._key if len(rows) > 1 else None)

    def _request_id(self) -> str:
        """The callers' ids, as the model's log names them."""
        return ",".join(single.request_id for single in self._singles)

    def _end_all(self, outcome: RowOutcome | None) -> None:
        for waiting in self.outcomes:
            _end(waiting, outcome)

    def _cancel_soon(self) -> None:
        if self._abandoned and self._task is not None and not self._cancels:
            self._cancels = True
            asyncio.get_running_loop().call_later(_CANCEL_AFTER_S, self._cancel_abandoned)

    def _cancel_abandoned(self) -> None:
        self._cancels = False
        rows, self._abandoned = self._abandoned, []
        if self._task is not None and not self._task.done():
            self._owner.start(self._cancel(rows))

    async def _cancel(self, rows: list[int]) -> None:
        with contextlib.suppress(GatewayError):  # a model that is gone has nothing left to cancel
            await self._owner.client.all_responses(encode_cancellation(self._key, rows), _CANCEL_TIMEOUT_S)


def _end(waiting: asyncio.Future[RowOutcome | None], outcome: RowOutcome | None) -> None:
    if not waiting.done():  # a cancelled one has no caller any more
        waiting.set_result(outcome)
