"""The whole way from a Triton request to its responses, over the echo engine: what callers are promised."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import triton_python_backend_utils as pb_utils

from llm_model.rows import OUTPUT_FLAGS
from llm_model.service import ModelService
from llm_model.tokenization import Tokenization
from tests.fakes.triton_python_backend_utils import FakeRequest
from tests.unit.model.running import answer, chat, new_service, only_error, request, rows_of, texts_of

INVALID_ARG = pb_utils.TritonError.INVALID_ARG
MODES = [(), ("partial",), ("stream",), ("stream", "partial")]
TEXTS = ["Hello world", "你好，世界", "线程束 😀!", "x"]
ALL = {"max_tokens": 100}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelService]:
    from tests.unit.model.tiny_model import write_model_folder

    with pytest.MonkeyPatch.context() as patch:
        running = new_service(write_model_folder(tmp_path_factory.mktemp("model")), [], patch)
    running.start()
    yield running
    running.stop()


# Answers


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_mode_gives_the_same_texts(service: ModelService, mode: tuple[str, ...], count: int) -> None:
    responses = answer(service, request(TEXTS[:count], *mode, sampling=[ALL], exclude=True))
    assert texts_of(responses) == TEXTS[:count]
    assert "stream" in mode or "partial" in mode or len(responses) == 1


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_gives_the_same_chat_answers(service: ModelService, mode: tuple[str, ...]) -> None:
    asked = request(None, *mode, chats=[chat(text) for text in TEXTS], sampling=[ALL])
    expected = [f"system\nBe brief.\nuser\n{text}\nassistant\n" for text in TEXTS]
    assert texts_of(answer(service, asked)) == expected


def test_texts_are_preceded_by_their_prompts_unless_told_otherwise(service: ModelService) -> None:
    assert texts_of(answer(service, request(["ab"], sampling=[ALL]))) == ["abab"]
    assert texts_of(answer(service, request(["ab"], sampling=[ALL], exclude=True))) == ["ab"]
    assert texts_of(answer(service, request(["ab"], "stream", sampling=[ALL]))) == ["ab"]
    (row,) = texts_of(answer(service, request(chats=[chat("ab")], sampling=[ALL], exclude=False)))
    assert row.startswith("<|im_start|>system\nBe brief.<|im_end|>")


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_each_prompt_has_its_own_parameters(service: ModelService, mode: tuple[str, ...]) -> None:
    sampling = [{"max_tokens": tokens} for tokens in (1, 2, 3)]
    asked = request(["abcdef"] * 3, *mode, "return_num_output_tokens", sampling=sampling, exclude=True)
    counts = rows_of(answer(service, asked), "num_output_tokens")
    assert {index: sum(found) for index, found in counts.items()} == {0: 1, 1: 2, 2: 3}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_samples_are_indexed_by_prompt_and_number(service: ModelService, mode: tuple[str, ...]) -> None:
    for temperature in (0, 1):
        asked = request(["a", "bc"], *mode, sampling=[{"n": 3, "temperature": temperature}], exclude=True)
        assert texts_of(answer(service, asked)) == ["a"] * 3 + ["bc"] * 3


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_finish_reason_comes_once_a_row(service: ModelService, mode: tuple[str, ...]) -> None:
    responses = answer(service, request(TEXTS, *mode, "return_finish_reason", sampling=[ALL]))
    for found in rows_of(responses, "finish_reason").values():
        assert [reason for reason in found if reason] == [b"length"]
        assert found[-1] == b"length"


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_token_ids_and_counts_add_up(
    service: ModelService, tokenization: Tokenization, mode: tuple[str, ...], count: int
) -> None:
    asked = request(TEXTS[:count], *mode, *OUTPUT_FLAGS, sampling=[ALL])
    responses = answer(service, asked)
    encoded = tokenization.encode(TEXTS[:count], add_special_tokens=True)
    token_ids = rows_of(responses, "token_ids")
    assert [[i for piece in token_ids[row] for i in json.loads(piece)] for row in range(count)] == encoded
    outputs = rows_of(responses, "num_output_tokens")
    assert [sum(outputs[row]) for row in range(count)] == [len(ids) for ids in encoded]
    inputs = rows_of(responses, "num_input_tokens")
    assert [set(inputs[row]) for row in range(count)] == [{len(ids)} for ids in encoded]
    assert {found for row in rows_of(responses, "logprobs").values() for found in row} == {b"null"}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_responses_hold_what_was_asked_for_and_no_more(
    service: ModelService, mode: tuple[str, ...], count: int
) -> None:
    always = {"text_output", "index"} | ({"error"} if count > 1 or "partial" in mode else set())
    for chosen in itertools.chain([()], itertools.combinations(OUTPUT_FLAGS, 1), [OUTPUT_FLAGS]):
        for response in answer(service, request(["a"] * count, *mode, *chosen)):
            assert set(response.outputs()) == always | {name.removeprefix("return_") for name in chosen}


def test_partial_responses_cover_every_row_once(service: ModelService) -> None:
    texts = [f"text {number}" if number % 7 else "" for number in range(300)]
    responses = answer(service, request(texts, "partial", exclude=True, sampling=[ALL]))
    rows = rows_of(responses)
    assert sorted(rows) == list(range(300))
    assert all(found == [texts[index].encode()] for index, found in rows.items())
    failed = {index for index, (error,) in rows_of(responses, "error").items() if error}
    assert failed == {index for index in range(300) if not index % 7}


# Errors


@pytest.mark.parametrize(
    "asked, told",
    [
        (request(), "exactly one of the inputs 'text_input' and 'messages' is needed, neither was given"),
        (request(["a"], chats=[chat("b")]), "exactly one of the inputs"),
        (request([]), "'text_input' is empty"),
        (request(["a"], sampling=["{"]), "sampling_parameters: not valid JSON"),
        (request(["a", "b"], sampling=[{"n": 0}]), "sampling_parameters: 'n' has value 0"),
        (request(["a", "b"], sampling=[{}] * 3), "'sampling_parameters' has 3 items"),
        (request(["a", "b"], sampling=[{"n": 1}, {"n": 2}]), "sampling_parameters: 'n' has values [1, 2]"),
        (request(["a"], parameters={"detokenize": True}), "request parameters: unknown or internal parameter"),
        (request(["a"], "stream", exclude=False), "'exclude_input_in_output' has value false"),
        (request([""]), "'text_input' is an empty text"),
        (request(["x" * 100]), "the prompt has 100 tokens; allowed are 1 to 63"),
        (request(["x" * 100], "stream"), "the prompt has 100 tokens; allowed are 1 to 63"),
        (request(chats=["{}"]), "messages: must be a JSON list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_is_wrong_ends_with_one_error(service: ModelService, asked: FakeRequest, told: str) -> None:
    code, message = only_error(answer(service, asked))
    assert code == INVALID_ARG
    assert message.startswith(f"INVALID_ARG: {told}")


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_row_that_is_wrong_costs_itself_only(service: ModelService, mode: tuple[str, ...]) -> None:
    sampling: list[Any] = [ALL, ALL, {"n": 0}, "{", ALL]
    asked = request(["a", "", "c", "d", "e"], *mode, "return_finish_reason", sampling=sampling, exclude=True)
    responses = answer(service, asked)
    assert texts_of(responses) == ["a", "", "", "", "e"]
    errors = {index: found[-1] for index, found in rows_of(responses, "error").items()}
    assert [index for index, error in errors.items() if error] == [1, 2, 3] or "partial" in mode
    assert {json.loads(error)["code"] for error in errors.values() if error} == {"INVALID_ARG"}
    reasons = {index: found[-1] for index, found in rows_of(responses, "finish_reason").items()}
    assert reasons == {0: b"length", 1: b"error", 2: b"error", 3: b"error", 4: b"length"}


def test_a_single_row_with_an_error_is_an_error_unless_partial(service: ModelService) -> None:
    assert only_error(answer(service, request([""])))[0] == INVALID_ARG
    (response,) = answer(service, request([""], "partial"))
    (error,) = response.outputs()["error"].tolist()
    assert json.loads(error)["code"] == "INVALID_ARG"


# The model's status


def test_info_is_answered_without_tensors(service: ModelService) -> None:
    (response,) = answer(service, request(parameters={"info": True}))
    outputs = response.outputs()
    assert (set(outputs), outputs["index"].tolist()) == ({"text_output", "index"}, [0])
    info = json.loads(outputs["text_output"][0])
    assert (info["backend"], info["backend_reason"], info["max_model_len"]) == ("echo", "USE_VLLM=echo", 64)
    assert info["dtype"] == "none"
    (engine,) = info["engines"]
    assert engine.pop("seconds_since_step") < 60
    idle = {"running": 0, "waiting": 0, "outstanding_tokens": 0, "restarts": 0}
    own = {"gpu": None, "pid": None, "batch_places": None, "max_model_len": None, "notes": []}
    assert engine == {"name": "echo-0", "state": "ready"} | idle | own


@pytest.mark.parametrize("given", [{"info": "true"}, {"row_key": "k", "cancel_rows": "0"}, {"row_key": "k"}], ids=str)
def test_request_parameters_are_read_once(service: ModelService, given: dict[str, str]) -> None:
    asked = request(["a"], "partial", parameters=given)
    text, times = asked.parameters(), 0

    def counted() -> str:
        nonlocal times
        times += 1
        return text

    asked.parameters = counted  # type: ignore[method-assign]
    (response,) = answer(service, asked)
    assert (times, response.has_error()) == (1, False)


def test_a_switch_that_is_neither_true_nor_false_is_an_error(service: ModelService) -> None:
    told = only_error(answer(service, request(parameters={"info": "maybe"})))
    assert told == (INVALID_ARG, "INVALID_ARG: 'info' has value 'maybe'. Allowed are true and false")


# Start and stop


def test_a_caller_whose_request_runs_at_the_end_is_told(
    start_service: Callable[..., ModelService], model_folder: Path
) -> None:
    from tests.unit.model.fake_engines import ScriptedEngine, for_ever
    from tests.waiting import wait_until

    engine = ScriptedEngine()
    service = start_service(engine)
    engine.answer = for_ever
    asked = [request(["a"]), request(["a", "b"], "stream")]
    for one in asked:
        service.submit(one)
    wait_until(lambda: engine.running == 3)
    service.stop()
    for one in asked:
        code, message = only_error(one.sender.wait_closed())
        assert (code, message) == (pb_utils.TritonError.UNAVAILABLE, "UNAVAILABLE: the model is shutting down")
    assert (engine.running, engine.stops) == (0, 1)
