"""The fake Triton for sample requests: texts, token ids, n samples a prompt, pieces, log probabilities.

It answers each prompt with its own text (token ids: their numbers), a character a token, as far as ``max_tokens``
goes. ``script`` of :class:`FakeTriton` goes before that, as for other requests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

from tests.fakes.triton_server import FakeTriton, Refuse, _add_integers, _add_strings, _error_json, _message, _strings


@dataclass
class SampleCall:
    """One sample request as it arrived, and how it ended."""

    id: str
    prompts: list[Any]
    parameters: dict[str, Any]
    flags: set[str]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    was_cancelled: bool = False


@dataclass(frozen=True)
class Part:
    """A row, or a piece of one."""

    row: int
    text: str
    finish_reason: str = ""
    error: tuple[str, str] | None = None


Play = Callable[[SampleCall], AsyncIterator[list[Part]]]


async def echo(call: SampleCall) -> AsyncIterator[list[Part]]:
    """Answer every prompt with itself: at once, or streamed by character."""
    rows = [text_of(prompt) for prompt in call.prompts for _ in range(call.parameters.get("n", 1))]
    limit = call.parameters.get("max_tokens", 16)
    ends = ["length" if len(text) > limit else "stop" for text in rows]
    cut = [text[:limit] for text in rows]
    if "stream" not in call.flags:
        echoed = "exclude_input_in_output" not in call.flags
        yield [Part(row, (rows[row] if echoed else "") + text, ends[row]) for row, text in enumerate(cut)]
        return
    for place in range(max(map(len, cut))):
        yield [Part(row, text[place]) for row, text in enumerate(cut) if place < len(text)]
    yield [Part(row, "", end) for row, end in enumerate(ends)]


def text_of(prompt: Any) -> str:
    """What the fake says to a prompt."""
    if isinstance(prompt, str):
        return prompt
    return str(prompt[-1]["content"]) if isinstance(prompt[0], dict) else " ".join(map(str, prompt))


def pieces(*texts: str, finish_reason: str = "stop", then: Exception | None = None, hang: bool = False) -> Play:
    """Stream these texts of the first row, then end it, fail with ``then``, or wait until the client gives up."""

    async def play(call: SampleCall) -> AsyncIterator[list[Part]]:
        for text in texts:
            yield [Part(0, text)]
        if hang:
            await asyncio.Event().wait()
        if then is not None:
            raise then
        yield [Part(0, "", finish_reason)]

    return play


def parts(*groups: list[Part]) -> Play:
    """Answer with these groups."""

    async def play(call: SampleCall) -> AsyncIterator[list[Part]]:
        for group in groups:
            yield group

    return play


class SamplingTriton(FakeTriton):
    """A fake Triton that also takes sample requests; those are noted in ``samples`` and played by ``plays``."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.info |= {"max_model_len": 512}
        self.samples: list[SampleCall] = []
        self.plays: list[Play] = []
        self.play: Play = echo

    async def ModelStreamInfer(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            names = {tensor.name for tensor in request.inputs}
            if not names & {"text_input", "exclude_input_in_output", "stream"}:
                async for message in super().ModelStreamInfer(_once(request), context):
                    yield message
                continue
            call = _read(request)
            self.samples.append(call)
            play = self.plays.pop(0) if self.plays else self.play
            try:
                async for group in play(call):
                    yield _message(_encode(call, group))
            except Refuse as exc:
                if exc.details.partition(":")[0].isupper():  # the model's own errors are messages of the stream
                    yield service_pb2.ModelStreamInferResponse(error_message=exc.details)
                else:
                    await context.abort(exc.status, exc.details)
            except asyncio.CancelledError:
                call.was_cancelled = True
                raise
            finally:
                call.ended.set()


async def _once(request: Any) -> AsyncIterator[Any]:
    yield request


def _read(request: Any) -> SampleCall:
    raw = {tensor.name: content for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)}
    if "messages" in raw:
        prompts = [json.loads(item) for item in _strings(raw["messages"])]
    elif request.parameters["text_input_is_token_ids"].bool_param:
        prompts = [json.loads(item) for item in _strings(raw["text_input"])]
    else:
        prompts = [item.decode() for item in _strings(raw["text_input"])]
    flags = {name for name, content in raw.items() if content == b"\x01"}
    return SampleCall(request.id, prompts, json.loads(_strings(raw["sampling_parameters"])[0]), flags)


def _encode(call: SampleCall, group: list[Part]) -> Any:
    response = service_pb2.ModelInferResponse(model_name="llm")
    n = call.parameters.get("n", 1)
    _add_strings(response, "text_output", [part.text.encode() for part in group])
    _add_integers(response, "index", [part.row for part in group])
    if len(call.prompts) > 1:
        _add_strings(response, "error", [_error_json(*part.error) if part.error else b"" for part in group])
    _add_strings(response, "finish_reason", [part.finish_reason.encode() for part in group])
    _add_integers(response, "num_input_tokens", [len(text_of(call.prompts[part.row // n])) for part in group])
    _add_integers(response, "num_output_tokens", [len(part.text) for part in group])
    if "return_logprobs" in call.flags:
        top = call.parameters["logprobs"]
        _add_strings(response, "logprobs", [json.dumps(_logprobs(part.text, top)).encode() for part in group])
        _add_strings(response, "token_ids", [json.dumps([ord(c) for c in part.text]).encode() for part in group])
    return response


def _logprobs(text: str, top: int) -> list[dict[str, Any]]:
    """The chosen token has rank 1; the others are the characters behind it. The last of them is impossible."""
    found = []
    for character in text:
        position = {
            str(ord(character) + place): {
                "logprob": -0.5 - place if place < 3 else None,
                "rank": place + 1,
                "decoded_token": chr(ord(character) + place),
            }
            for place in range(max(top, 1))
        }
        found.append(position)
    return found
