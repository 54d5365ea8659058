"""Triton's two conversations: what is sent, in which order, and what is never asked."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import triton_python_backend_utils as pb_utils

from llm_model.responder import CancellationWatcher, Outbox, ResponseStream
from tests.fakes.triton_python_backend_utils import FakeResponseSender
from tests.waiting import wait_until


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    running = Outbox()
    yield running
    running.stop()


@pytest.fixture
def watcher() -> Iterator[CancellationWatcher]:
    running = CancellationWatcher()
    yield running
    running.stop()


def response(number: int) -> pb_utils.InferenceResponse:
    made = pb_utils.InferenceResponse()
    made.number = number
    return made


def error() -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError("x"))


def test_responses_go_out_in_order_and_then_the_end(outbox: Outbox) -> None:
    sender = FakeResponseSender()
    stream = ResponseStream(sender, outbox)
    for number in range(100):
        stream.send(lambda number=number: response(number))
    stream.close()
    assert [sent.number for sent in sender.wait_closed()] == list(range(100))


def test_an_end_ends_it(outbox: Outbox) -> None:
    sender = FakeResponseSender()
    stream = ResponseStream(sender, outbox)
    stream.close()
    stream.send(lambda: response(1))
    stream.fail(error)
    stream.close()
    outbox.stop()
    assert sender.wait_closed() == []


def test_an_error_is_the_end(outbox: Outbox) -> None:
    sender = FakeResponseSender()
    stream = ResponseStream(sender, outbox)
    stream.fail(error)
    stream.close()
    outbox.stop()
    assert [sent.has_error() for sent in sender.wait_closed()] == [True]


def test_what_cannot_be_built_does_not_hold_up_the_others(outbox: Outbox) -> None:
    broken, fine = FakeResponseSender(), FakeResponseSender()
    stream = ResponseStream(broken, outbox)
    stream.send(lambda: response(1 // 0))
    stream.close()
    ResponseStream(fine, outbox).close()
    assert fine.wait_closed() == []
    (lost,) = broken.wait_closed()
    assert lost.error is not None  # a lost response must not look like success


def test_tensors_are_made_on_the_sending_thread(outbox: Outbox) -> None:
    threads: list[str] = []
    sender = FakeResponseSender()
    stream = ResponseStream(sender, outbox)

    def build() -> pb_utils.InferenceResponse:
        threads.append(threading.current_thread().name)
        return response(1)

    stream.send(build)
    sender.wait_responses(1)
    assert threads == ["responses"]


def test_nothing_is_kept_alive_by_an_idle_outbox(outbox: Outbox) -> None:
    sender = FakeResponseSender()
    ResponseStream(sender, outbox).close()
    sender.wait_closed()
    gone = weakref.ref(sender)
    del sender
    wait_until(lambda: gone() is None)  # with it the request, whose shared memory must be given back


def test_a_stream_that_has_ended_is_not_asked_about(outbox: Outbox) -> None:
    sender = FakeResponseSender()
    stream = ResponseStream(sender, outbox)
    sender.cancelled = True
    assert stream.is_cancelled()
    stream.close()
    sender.wait_closed()
    assert not stream.is_cancelled()
    assert (sender.questions, sender.crashes) == (1, [])


def test_the_end_waits_for_a_question_under_way(outbox: Outbox) -> None:
    asked, answered = threading.Event(), threading.Event()

    class Slow(FakeResponseSender):
        def is_cancelled(self) -> bool:
            asked.set()
            answered.wait(5)
            return super().is_cancelled()

    sender, other = Slow(), FakeResponseSender()
    stream = ResponseStream(sender, outbox)
    question = threading.Thread(target=stream.is_cancelled)
    question.start()
    assert asked.wait(5)
    stream.close()
    assert sender.finals == 0
    answered.set()
    question.join()
    sender.wait_closed()
    ResponseStream(other, outbox).close()
    other.wait_closed()


def test_each_cancellation_is_reported_once(outbox: Outbox, watcher: CancellationWatcher) -> None:
    reported: list[int] = []
    senders = [FakeResponseSender() for _ in range(3)]
    for key, sender in enumerate(senders):
        watcher.watch(key, ResponseStream(sender, outbox), lambda key=key: reported.append(key))
    senders[1].cancelled = True
    wait_until(lambda: reported)
    questions = senders[0].questions
    wait_until(lambda: senders[0].questions > questions + 1)
    assert reported == [1]


def test_who_is_forgotten_is_not_asked(outbox: Outbox, watcher: CancellationWatcher) -> None:
    forgotten, other = FakeResponseSender(), FakeResponseSender()
    watcher.watch(1, ResponseStream(forgotten, outbox), lambda: None)
    watcher.watch(2, ResponseStream(other, outbox), lambda: None)
    watcher.forget(1)
    watcher.forget(1)
    wait_until(lambda: other.questions)
    assert forgotten.questions == 0


def test_what_is_urgent_goes_first_and_keeps_its_order(outbox: Outbox) -> None:
    sending, held_up, order = threading.Event(), threading.Event(), []

    def hold_up() -> None:
        sending.set()
        held_up.wait(10)

    outbox.put(hold_up)
    assert sending.wait(10)
    for number in range(3):
        outbox.put(lambda number=number: order.append(number))
    for number in range(10, 13):
        outbox.put(lambda number=number: order.append(number), urgent=True)
    held_up.set()
    outbox.stop()
    assert order == [10, 11, 12, 0, 1, 2]


@pytest.mark.parametrize("end", [lambda stream: stream.close(), lambda stream: stream.fail(error)])
def test_a_stream_that_has_ended_holds_no_sender(outbox: Outbox, end: Callable[[ResponseStream], None]) -> None:
    """Triton unloads no model of which a sender is left, and waits a minute at its stop."""
    sender = FakeResponseSender()
    known, stream = weakref.ref(sender), ResponseStream(sender, outbox)
    end(stream)
    sender.wait_closed()
    del sender
    wait_until(lambda: known() is None)
    assert not stream.is_cancelled()
