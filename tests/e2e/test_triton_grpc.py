"""Direct gRPC clients with NVIDIA's tritonclient: answers, streams, errors, cancellation."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, infer, requests_in_engines, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

CHAT = json.dumps([{"role": "user", "content": "什么是数据并行性？"}], ensure_ascii=False)
GREEDY = json.dumps({"max_tokens": 16, "temperature": 0})
LONG = json.dumps({"max_tokens": 1000, "temperature": 0, "ignore_eos": True})


def test_one_chat_in_one_text_out(stack: Stack) -> None:
    answer = infer(stack.grpc_address, [strings("messages", [CHAT]), strings("sampling_parameters", [GREEDY])])
    assert answer.error is None
    (response,) = answer.responses
    assert response["index"] == [0]
    assert set(response) == {"text_output", "index"}
    assert answer.joined()


def test_batch_of_64_equals_single_requests(stack: Stack) -> None:
    chats = [json.dumps([{"role": "user", "content": f"{n} + {n} = ?"}]) for n in range(64)]
    batch = infer(
        stack.grpc_address,
        [
            strings("messages", chats),
            strings("sampling_parameters", [GREEDY]),
            flag("return_finish_reason", True),
            flag("return_num_input_tokens", True),
            flag("return_num_output_tokens", True),
        ],
    )
    (response,) = batch.responses
    assert response["index"] == list(range(64))
    assert response["error"] == [b""] * 64
    assert {reason.decode() for reason in response["finish_reason"]} <= {"stop", "length"}
    assert all(0 < count <= 16 for count in response["num_output_tokens"])
    assert all(count > 0 for count in response["num_input_tokens"])
    for place in (0, 31, 63):
        single = infer(
            stack.grpc_address, [strings("messages", [chats[place]]), strings("sampling_parameters", [GREEDY])]
        )
        assert single.joined() == batch.joined(place)


def test_parameters_for_each_row(stack: Stack) -> None:
    params = [json.dumps({"max_tokens": count, "temperature": 0, "ignore_eos": True}) for count in (1, 5, 9)]
    answer = infer(
        stack.grpc_address,
        [
            strings("messages", [CHAT] * 3),
            strings("sampling_parameters", params),
            flag("return_num_output_tokens", True),
        ],
    )
    assert answer.responses[0]["num_output_tokens"] == [1, 5, 9]


def test_stream_joins_to_the_unstreamed_text(stack: Stack) -> None:
    inputs = [strings("messages", [CHAT]), strings("sampling_parameters", [GREEDY])]
    whole = infer(stack.grpc_address, inputs)
    streamed = infer(stack.grpc_address, [*inputs, flag("stream", True), flag("return_finish_reason", True)])
    assert len(streamed.responses) > 1
    assert streamed.joined() == whole.joined()
    assert [response["finish_reason"] for response in streamed.responses[:-1]] == [[b""]] * (
        len(streamed.responses) - 1
    )
    assert streamed.responses[-1]["finish_reason"][0] in {b"stop", b"length"}


def test_plain_text_is_echoed_unless_excluded(stack: Stack) -> None:
    inputs = [strings("text_input", ["数据并行性是指"]), strings("sampling_parameters", [GREEDY])]
    with_input = infer(stack.grpc_address, inputs).joined()
    without = infer(stack.grpc_address, [*inputs, flag("exclude_input_in_output", True)]).joined()
    assert with_input == "数据并行性是指" + without
    streamed = infer(stack.grpc_address, [*inputs, flag("stream", True)]).joined()
    assert streamed == without


def test_parameters_may_come_as_request_parameters(stack: Stack) -> None:
    answer = infer(
        stack.grpc_address,
        [strings("messages", [CHAT]), flag("return_num_output_tokens", True)],
        parameters={"max_tokens": 3, "temperature": "0", "ignore_eos": True},
    )
    assert answer.error is None
    assert answer.responses[0]["num_output_tokens"] == [3]


def test_partial_rows_arrive_once_each(stack: Stack) -> None:
    params = [json.dumps({"max_tokens": count, "temperature": 0, "ignore_eos": True}) for count in (2, 200, 4)]
    answer = infer(
        stack.grpc_address,
        [strings("messages", [CHAT] * 3), strings("sampling_parameters", params), flag("partial", True)],
    )
    assert sorted(place for response in answer.responses for place in response["index"]) == [0, 1, 2]
    assert len(answer.responses) > 1
    assert 1 not in answer.responses[0]["index"]


def test_greedy_samples_repeat_the_one_result(stack: Stack) -> None:
    answer = infer(
        stack.grpc_address, [strings("messages", [CHAT] * 2)], parameters={"max_tokens": 4, "temperature": 0, "n": 3}
    )
    (response,) = answer.responses
    assert response["index"] == [0, 1, 2, 3, 4, 5]
    assert len(set(response["text_output"])) == 1


def test_one_bad_row_does_not_touch_its_neighbours(stack: Stack) -> None:
    bad = ["not json", "[]", json.dumps([{"role": "user"}]), json.dumps([{"role": "user", "content": "长" * 20000}])]
    answer = infer(
        stack.grpc_address, [strings("messages", [CHAT, *bad, CHAT]), strings("sampling_parameters", [GREEDY])]
    )
    assert answer.error is None
    (response,) = answer.responses
    errors = [json.loads(item) if item else None for item in response["error"]]
    assert errors[0] is None
    assert errors[5] is None
    assert [error["code"] for error in errors[1:5]] == ["INVALID_ARG"] * 4
    assert response["text_output"][0] == response["text_output"][5] != b""
    assert response["text_output"][1:5] == [b""] * 4


@pytest.mark.parametrize(
    "inputs, parameters, says",
    [
        ([], {}, "exactly one of the inputs 'text_input' and 'messages'"),
        ([strings("text_input", ["a"]), strings("messages", [CHAT])], {}, "both were given"),
        ([strings("text_input", [""])], {}, "'text_input' is an empty text"),
        ([strings("text_input", [b"\xff"])], {}, "'text_input' is not valid UTF-8"),
        ([strings("messages", ["nope"])], {}, "messages: not valid JSON"),
        ([strings("messages", ["[" * 5000])], {}, "messages: not valid JSON"),
        (
            [strings("messages", [CHAT]), strings("sampling_parameters", ["{"])],
            {},
            "sampling_parameters: not valid JSON",
        ),
        ([strings("messages", [CHAT]), strings("sampling_parameters", ["{}"] * 3)], {}, "has 3 items"),
        ([strings("messages", [CHAT])], {"no_such": 1}, "'no_such'"),
        ([strings("messages", [CHAT])], {"extra_args": "{}"}, "'extra_args'"),
        ([strings("messages", [CHAT])], {"output_kind": 2}, "'output_kind'"),
        ([strings("messages", [CHAT])], {"detokenize": False}, "'detokenize'"),
        ([strings("messages", [CHAT])], {"n": 100000}, "'n' has value 100000"),
        ([strings("messages", [CHAT])], {"temperature": "hot"}, "'temperature' has value \"hot\""),
        (
            [strings("messages", [json.dumps([{"role": "user", "content": "长" * 20000}])])],
            {},
            "tokens; allowed are 1 to",
        ),
    ],
)
def test_bad_requests_are_refused_by_name(
    stack: Stack, inputs: list[Any], parameters: dict[str, Any], says: str
) -> None:
    answer = infer(stack.grpc_address, inputs, parameters=parameters)
    assert answer.message.startswith("INVALID_ARG: "), answer.message
    assert says in answer.message


def test_wrong_types_and_shapes_are_refused(stack: Stack) -> None:
    numbers = triton.InferInput("text_input", [1], "INT32")
    numbers.set_data_from_numpy(np.array([1], dtype=np.int32))
    square = triton.InferInput("text_input", [1, 1], "BYTES")
    square.set_data_from_numpy(np.array([[b"a"]], dtype=np.object_))
    unknown = strings("no_such_input", ["a"])
    for tensor, name in ((numbers, "text_input"), (square, "text_input"), (unknown, "no_such_input")):
        assert name in infer(stack.grpc_address, [tensor]).message
    flags = triton.InferInput("stream", [2], "BOOL")
    flags.set_data_from_numpy(np.array([True, False]))
    assert "stream" in infer(stack.grpc_address, [strings("messages", [CHAT]), flags]).message
    assert infer(stack.grpc_address, [strings("messages", [CHAT])], parameters={"max_tokens": 1}).error is None


def test_errors_reach_the_caller_with_a_status_code(stack: Stack) -> None:
    answer = infer(stack.grpc_address, [], headers={"triton_grpc_error": "true"})
    assert answer.error is not None
    assert "INVALID_ARGUMENT" in str(answer.error.status())


async def test_aio_client_streams(stack: Stack) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {
            "model_name": "llm",
            "inputs": [strings("messages", [CHAT]), strings("sampling_parameters", [GREEDY]), flag("stream", True)],
            "enable_empty_final_response": True,
        }

    texts: list[str] = []
    async with triton_aio.InferenceServerClient(stack.grpc_address) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None
            response = result.get_response()
            if response.parameters["triton_final_response"].bool_param:
                break
            texts.append(result.as_numpy("text_output")[0].decode())
    expected = infer(stack.grpc_address, [strings("messages", [CHAT]), strings("sampling_parameters", [GREEDY])])
    assert "".join(texts) == expected.joined()


@pytest.mark.parametrize("rows, streamed", [(1, False), (1, True), (8, False)])
def test_cancelled_requests_leave_the_engine(stack: Stack, rows: int, streamed: bool) -> None:
    with triton.InferenceServerClient(stack.grpc_address) as client:
        ended: list[InferenceServerException | None] = []
        client.start_stream(lambda result, error: ended.append(error))
        inputs = [strings("messages", [CHAT] * rows), strings("sampling_parameters", [LONG]), flag("stream", streamed)]
        client.async_stream_infer("llm", inputs)
        stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == rows, 20, "generating")
        cancelled_at = time.monotonic()
        client.stop_stream(cancel_requests=True)
    stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 0, 20, "free again")
    assert time.monotonic() - cancelled_at < 2.0


def test_one_row_of_a_shared_request_ends_alone(stack: Stack) -> None:
    with triton.InferenceServerClient(stack.grpc_address) as client:
        ended: list[InferenceServerException | None] = []
        client.start_stream(lambda result, error: ended.append(error))
        inputs = [strings("messages", [CHAT] * 3), strings("sampling_parameters", [LONG]), flag("partial", True)]
        client.async_stream_infer("llm", inputs, parameters={"row_key": "three callers"})
        stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 3, 20, "generating")
        cancelled_at = time.monotonic()
        wish = infer(stack.grpc_address, [], parameters={"row_key": "three callers", "cancel_rows": "1"})
        assert wish.error is None
        stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 2, 20, "free of the one")
        assert time.monotonic() - cancelled_at < 2.0
        client.stop_stream(cancel_requests=True)
    stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 0, 20, "free again")


def test_a_deadline_ends_the_generation(stack: Stack) -> None:
    async def ask() -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            inputs = [strings("messages", [CHAT]), strings("sampling_parameters", [LONG])]
            yield {"model_name": "llm", "inputs": inputs}

        async with triton_aio.InferenceServerClient(stack.grpc_address) as client:
            with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
                async for _ in client.stream_infer(requests(), stream_timeout=0.5):
                    pass

    asyncio.run(ask())
    ended_at = time.monotonic()
    stack.wait_for(lambda: requests_in_engines(stack.grpc_address) == 0, 20, "free again")
    assert time.monotonic() - ended_at < 2.0
