"""What goes wrong between a request and its answer: engines that fail, callers that go away, Triton that refuses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import triton_python_backend_utils as pb_utils

from llm_model.engines.base import EngineStatus, GenerationRequest, Sample
from llm_model.errors import EngineUnavailable, GenerationFailed, StartupError
from llm_model.service import ModelService
from tests.unit.model.fake_engines import ScriptedEngine, echo, for_ever, raising
from tests.unit.model.running import answer, error_of, only_error, request, rows_of, texts_of
from tests.waiting import wait_until

StartService = Callable[..., ModelService]
CODES = pb_utils.TritonError
MODES = [(), ("partial",), ("stream",)]
FAILURES = [
    (GenerationFailed("no luck"), CODES.INTERNAL, "INTERNAL: no luck"),
    (EngineUnavailable("it died"), CODES.UNAVAILABLE, "UNAVAILABLE: it died"),
    (RuntimeError("/secret/path"), CODES.INTERNAL, "INTERNAL: the model failed on this prompt"),
]
CANCELLED_WITHIN_S = 2.0


@pytest.fixture
def service(start_service: StartService, engine: ScriptedEngine) -> ModelService:
    return start_service(engine)


# Engines


@pytest.mark.parametrize("failure, code, told", FAILURES, ids=repr)
@pytest.mark.parametrize("mode", [(), ("stream",)], ids=str)
def test_a_single_prompt_that_fails_is_the_requests_error(
    service: ModelService, engine: ScriptedEngine, failure: Exception, code: int, told: str, mode: tuple[str, ...]
) -> None:
    engine.answer = raising(failure)
    assert only_error(answer(service, request(["a"], *mode))) == (code, told)


@pytest.mark.parametrize("failure, code, told", FAILURES, ids=repr)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_prompt_of_many_that_fails_is_its_rows_error(
    service: ModelService, engine: ScriptedEngine, failure: Exception, code: int, told: str, mode: tuple[str, ...]
) -> None:
    async def fail_on_long_prompts(asked: GenerationRequest) -> list[Sample]:
        if len(asked.token_ids) > 3:
            raise failure
        return await echo(asked)

    engine.answer = fail_on_long_prompts
    responses = answer(service, request(["a", "b" * 9, "c"], *mode, exclude=True))
    errors = {index: found[-1] for index, found in rows_of(responses, "error").items()}
    assert (sorted(errors), errors[0], errors[2]) == ([0, 1, 2], b"", b"")
    found = json.loads(errors[1])
    assert f"{found['code']}: {found['message']}" == told


def test_a_stream_that_breaks_midway_ends_with_its_error(service: ModelService, engine: ScriptedEngine) -> None:
    async def break_off(asked: GenerationRequest) -> Any:
        yield [Sample(0, asked.token_ids[:1], text="so far")]
        raise EngineUnavailable("it died")

    engine.stream = break_off  # type: ignore[method-assign, assignment]
    first, last = answer(service, request(["ab"], "stream"))
    assert first.outputs()["text_output"].tolist() == [b"so far"]
    assert error_of(last) == (CODES.UNAVAILABLE, "UNAVAILABLE: it died")


def test_without_a_live_engine_requests_are_refused(service: ModelService, engine: ScriptedEngine) -> None:
    engine.alive = False
    assert only_error(answer(service, request(["a"]))) == (CODES.UNAVAILABLE, "UNAVAILABLE: no engine is alive")


@pytest.mark.parametrize("samples", [[Sample(0, [-1])], [Sample(0, ["x"])], [None], None], ids=repr)  # type: ignore[list-item]
@pytest.mark.parametrize("mode", [(), ("partial",)], ids=str)
def test_an_engine_that_talks_nonsense_ends_no_thread(
    service: ModelService, engine: ScriptedEngine, samples: Any, mode: tuple[str, ...]
) -> None:
    async def nonsense(asked: GenerationRequest) -> Any:
        return samples

    engine.answer = nonsense
    told = only_error(answer(service, request(["a"], *mode)))
    assert told == (CODES.INTERNAL, "INTERNAL: the model failed on this request")
    engine.answer = echo
    assert texts_of(answer(service, request(["a"], exclude=True))) == ["a"]


def test_an_engine_whose_status_fails_does_not_keep_info_waiting(service: ModelService, engine: ScriptedEngine) -> None:
    def broken() -> EngineStatus:
        raise KeyError("status")

    engine.status = broken  # type: ignore[method-assign]
    code, message = only_error(answer(service, request(parameters={"info": True})))
    assert (code, message) == (CODES.INTERNAL, "INTERNAL: the model's status is not known")


# Callers that go away


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("count", [1, 50])
def test_a_cancelled_request_leaves_the_engine(
    service: ModelService, engine: ScriptedEngine, mode: tuple[str, ...], count: int
) -> None:
    engine.answer = for_ever
    asked = request(["a"] * count, *mode)
    service.submit(asked)
    wait_until(lambda: engine.running == count)
    asked.sender.cancelled = True
    wait_until(lambda: engine.running == 0, CANCELLED_WITHIN_S)
    assert asked.sender.wait_closed() == []  # nobody reads; an error here would crash Triton
    assert engine.aborted == count


def test_a_request_that_is_cancelled_before_it_begins_is_closed_all_the_same(
    service: ModelService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton waits for the end of every request before it unloads the model."""
    begin = service._begin

    def begin_and_cancel(*call: Any) -> None:
        begin(*call)
        for task in service._calls:
            task.cancel()

    monkeypatch.setattr(service, "_begin", begin_and_cancel)
    asked = request(["1"])
    service.submit(asked)
    assert asked.sender.wait_closed() == []


def test_only_the_cancelled_request_is_cancelled(service: ModelService, engine: ScriptedEngine) -> None:
    engine.answer = for_ever
    goes, stays = request(["a"]), request(["b"])
    service.submit(goes)
    service.submit(stays)
    wait_until(lambda: engine.running == 2)
    goes.sender.cancelled = True
    goes.sender.wait_closed()
    questions = stays.sender.questions
    wait_until(lambda: stays.sender.questions > questions + 1)  # the watcher went round again
    assert (engine.running, stays.sender.finals) == (1, 0)


def test_nothing_is_asked_about_a_request_that_has_ended(service: ModelService, engine: ScriptedEngine) -> None:
    engine.answer = for_ever
    open_one, ended = request(["a"]), request(["b"])
    service.submit(open_one)
    wait_until(lambda: open_one.sender.questions)
    engine.answer = echo
    answer(service, ended)
    questions = open_one.sender.questions
    wait_until(lambda: open_one.sender.questions > questions + 1)
    assert (ended.sender.questions, ended.sender.crashes) == (0, [])


def test_a_question_that_fails_ends_no_thread(service: ModelService, engine: ScriptedEngine) -> None:
    engine.answer = for_ever
    odd, plain = request(["a"]), request(["b"])
    asked_odd = 0

    def fail() -> bool:
        nonlocal asked_odd
        asked_odd += 1
        raise RuntimeError("the stub is going")

    odd.sender.is_cancelled = fail  # type: ignore[method-assign]
    service.submit(odd)
    service.submit(plain)
    wait_until(lambda: asked_odd > 1)
    plain.sender.cancelled = True
    plain.sender.wait_closed()


# Triton


def test_responses_that_cannot_be_sent_leave_no_caller_waiting(service: ModelService) -> None:
    asked = request(["a"])
    asked.sender.refuses = True
    assert answer(service, asked) == []
    assert texts_of(answer(service, request(["a"], exclude=True))) == ["a"]


def test_a_request_that_cannot_be_read_is_answered(service: ModelService) -> None:
    asked = request(["a"])

    def broken() -> Any:
        raise ValueError("shared memory")

    asked.inputs = broken  # type: ignore[method-assign]
    assert only_error(answer(service, asked)) == (CODES.INTERNAL, "INTERNAL: the request could not be read")


def test_what_is_unexpected_is_logged_and_not_told(
    service: ModelService, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.answer = raising(RuntimeError("/secret/path"))
    with caplog.at_level(logging.ERROR, logger="llm.model"):
        _, message = only_error(answer(service, request(["a"])))
    assert "/secret/path" not in message
    assert "/secret/path" in caplog.text


def test_a_callers_id_forges_no_line_of_the_log(
    service: ModelService, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.answer = for_ever
    asked = request(["a"], request_id="1\nERROR llm.model: all is lost")
    with caplog.at_level(logging.INFO, logger="llm.model"):
        service.submit(asked)
        wait_until(lambda: engine.running == 1)
        asked.sender.cancelled = True
        asked.sender.wait_closed()
    (record,) = [record for record in caplog.records if record.name == "llm.model"]
    assert record.getMessage() == "request 1?ERROR llm.model: all is lost was cancelled"


# Start


def test_a_model_that_cannot_answer_does_not_start(start_service: StartService) -> None:
    engine = ScriptedEngine(answer=raising(GenerationFailed("bad weights")))
    with pytest.raises(StartupError, match="the model answers no question of the warm-up: INTERNAL: bad weights"):
        start_service(engine)


def test_an_engine_that_cannot_start_stops_the_start(start_service: StartService) -> None:
    class Broken(ScriptedEngine):
        async def start(self) -> None:
            raise StartupError("no memory")

    with pytest.raises(StartupError, match="no memory"):
        start_service(Broken())
