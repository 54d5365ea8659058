"""Requests in the form that clients of NVIDIA's vLLM backend send: what they rely on holds here too.

Their forms: everything in one-element tensors, sampling parameters as texts, twice (as a tensor and as request
parameters), several requests on one stream told apart by their ids, and ``text_output`` named as the wanted output.
Where this model differs on purpose, the documentation's table says so and the test here shows it.
"""

from __future__ import annotations

import json
import queue
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.stack import Stack
from tests.e2e.triton_client import flag, strings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

PROMPTS = ("The most dangerous animal is", "The capital of France is", "The future of AI is")
SAMPLING = {"temperature": "0", "top_p": "1", "max_tokens": "4"}


def their_request(
    prompt: str,
    request_id: int,
    *,
    stream: bool,
    sampling: dict[str, str] = SAMPLING,
    as_tensor: bool = True,
    exclude: bool | None = None,
) -> dict[str, Any]:
    inputs = [strings("text_input", [prompt]), flag("stream", stream)]
    if as_tensor:
        inputs.append(strings("sampling_parameters", [json.dumps(sampling)]))
    if exclude is not None:
        inputs.append(flag("exclude_input_in_output", exclude))
    return {
        "model_name": "llm",
        "inputs": inputs,
        "outputs": [triton.InferRequestedOutput("text_output")],
        "request_id": str(request_id),
        "parameters": sampling,
    }


def ask(stack: Stack, requests: Sequence[dict[str, Any]]) -> dict[str, list[bytes] | InferenceServerException]:
    """Send all on one stream, as their tests do; return the first response, or the error, by request id."""
    came: queue.Queue[Any] = queue.Queue()
    found: dict[str, list[bytes] | InferenceServerException] = {}
    with triton.InferenceServerClient(stack.grpc_address) as client:
        client.start_stream(lambda result, error: came.put(error or result))
        for request in requests:
            client.async_stream_infer(**request)
        for _ in requests:
            result = came.get(timeout=60)
            if isinstance(result, InferenceServerException):
                found[requests[0]["request_id"]] = result
            else:
                found[result.get_response().id] = result.as_numpy("text_output").tolist()
    return found


@pytest.mark.parametrize("as_tensor", [True, False], ids=["tensor", "request parameters"])
def test_several_requests_share_a_stream(echo_stack: Stack, as_tensor: bool) -> None:
    requests = [their_request(prompt, place, stream=False, as_tensor=as_tensor) for place, prompt in enumerate(PROMPTS)]
    found = ask(echo_stack, requests)
    assert set(found) == {"0", "1", "2"}
    for place, prompt in enumerate(PROMPTS):
        (text,) = found[str(place)]
        assert text.decode().startswith(prompt)  # not excluded: the prompt goes before
        assert len(text) > len(prompt)


@pytest.mark.parametrize("exclude, with_prompt", [(None, True), (False, True), (True, False)])
def test_the_prompt_is_left_out_where_that_is_asked_for(
    echo_stack: Stack, exclude: bool | None, with_prompt: bool
) -> None:
    (text,) = ask(echo_stack, [their_request(PROMPTS[0], 7, stream=False, exclude=exclude)])["7"]
    assert text.decode().startswith(PROMPTS[0]) == with_prompt


async def stream(stack: Stack, requests: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """All pieces by request id, with the aio client of their sample."""

    async def iterate() -> AsyncIterator[dict[str, Any]]:
        for request in requests:
            yield request

    pieces: dict[str, list[str]] = {}
    async with triton_aio.InferenceServerClient(stack.grpc_address) as client:
        async for result, error in client.stream_infer(iterate(), stream_timeout=60):
            if error is not None:
                raise error
            (text,) = result.as_numpy("text_output").tolist()
            pieces.setdefault(result.get_response().id, []).append(text.decode())
    return pieces


@pytest.mark.parametrize("exclude", [None, True])
async def test_a_stream_gives_what_is_new(echo_stack: Stack, exclude: bool | None) -> None:
    requests = [their_request(p, place, stream=True, exclude=exclude) for place, p in enumerate(PROMPTS)]
    pieces = await stream(echo_stack, requests)
    whole = ask(
        echo_stack, [{**r, "inputs": [r["inputs"][0], flag("exclude_input_in_output", True)]} for r in requests]
    )
    assert set(pieces) == {"0", "1", "2"}
    for request_id, texts in pieces.items():
        assert ["".join(texts).encode()] == whole[request_id]


async def test_a_stream_with_the_prompt_is_refused(echo_stack: Stack) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await stream(echo_stack, [their_request(PROMPTS[0], 1, stream=True, exclude=False)])
    assert caught.value.message() == (
        "INVALID_ARG: 'exclude_input_in_output' has value false. With 'stream' only true is allowed"
    )


def test_an_adapter_that_is_not_there_is_refused(echo_stack: Stack) -> None:
    error = ask(echo_stack, [their_request(PROMPTS[0], 1, stream=False, sampling={**SAMPLING, "lora_name": "doll"})])[
        "1"
    ]
    assert isinstance(error, InferenceServerException)
    assert error.message().startswith("INVALID_ARG: 'lora_name' has value 'doll': no such adapter")


def test_samples_are_rows(echo_stack: Stack) -> None:
    """Their backend puts the prompt before the first sample only; here each row is whole."""
    sampling = {**SAMPLING, "n": "2", "temperature": "1"}
    texts = ask(echo_stack, [their_request(PROMPTS[0], 1, stream=False, sampling=sampling)])["1"]
    assert isinstance(texts, list)
    assert len(texts) == 2
    assert all(text.decode().startswith(PROMPTS[0]) for text in texts)


@pytest.mark.parametrize("name", ["image", "embedding_request"])
def test_inputs_for_other_tasks_are_unknown(echo_stack: Stack, name: str) -> None:
    request = their_request(PROMPTS[0], 1, stream=False)
    request["inputs"].append(strings(name, ["x"]))
    error = ask(echo_stack, [request])["1"]
    assert isinstance(error, InferenceServerException)
    assert name in error.message()
