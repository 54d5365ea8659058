"""Direct gRPC clients with NVIDIA's tritonclient: answers, streams, errors, cancellation."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, infer, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

CHAT = json.dumps([{"role": "user", "content": "什么是数据并行性？"}], ensure_ascii=False)
GREEDY = json.dumps({"max_tokens": 16, "temperature": 0})


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


@pytest.mark.parametrize("streamed", [False, True])
def test_all_outputs_of_all_samples(stack: Stack, streamed: bool) -> None:
    """Two prompts of two samples, one with log probabilities and one without."""
    sampling = [json.dumps({"max_tokens": 4, "n": 2, "seed": 3, "ignore_eos": True, "logprobs": k}) for k in (2, None)]
    answer = infer(
        stack.grpc_address,
        [
            *(strings("messages", [CHAT] * 2), strings("sampling_parameters", sampling), flag("stream", streamed)),
            *(flag(f"return_{name}", True) for name in ("finish_reason", "cumulative_logprob", "logprobs")),
            *(flag(f"return_{name}", True) for name in ("num_input_tokens", "num_output_tokens", "token_ids")),
        ],
    )
    assert answer.error is None, answer.message
    ids: dict[int, list[int]] = {}
    probabilities: dict[int, list[Any]] = {}
    for response in answer.responses:
        for place, index in enumerate(response["index"]):
            new = json.loads(response["token_ids"][place])
            assert response["num_output_tokens"][place] == len(new)
            ids.setdefault(index, []).extend(new)
            probabilities.setdefault(index, []).extend(json.loads(response["logprobs"][place]) or [])
    assert {index: len(found) for index, found in ids.items()} == dict.fromkeys(range(4), 4)
    assert [len(probabilities[index]) for index in range(4)] == [4, 4, 0, 0]
    for index in (0, 1):
        for token_id, position in zip(ids[index], probabilities[index], strict=True):
            assert 2 <= len(position) <= 3
            assert position[str(token_id)]["logprob"] <= 0
    assert answer.joined(0) != ""


@pytest.mark.parametrize(
    "structure, pattern",
    [
        ({"regex": "[0-9]{3}"}, r"[0-9]{3}"),
        ({"choice": ["warp", "block"]}, "warp|block"),
        ({"json": {"type": "string", "enum": ["grid", "thread"]}}, '"grid"|"thread"'),
    ],
    ids=["regex", "choice", "json"],
)
def test_structured_outputs_through_sampling_parameters(stack: Stack, structure: dict[str, Any], pattern: str) -> None:
    sampling = json.dumps({"max_tokens": 64, "temperature": 0, "structured_outputs": structure})
    answer = infer(stack.grpc_address, [strings("messages", [CHAT]), strings("sampling_parameters", [sampling])])
    assert answer.error is None, answer.message
    assert re.fullmatch(pattern, answer.joined()), answer.joined()
