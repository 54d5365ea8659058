"""Inputs made ready for the engines: rendered, tokenized many at a time, checked against the model's length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from .adapters import Adapter, Adapters
from .errors import InvalidArgument, ModelError
from .parameters import SamplingParameters, decode_json
from .rows import InferenceCall
from .tokenization import Tokenization

SLICE = 64  # rows worked on before other work may run on the event loop
CHUNK = 256  # inputs tokenized in one call: the engines are at work on the first while the next are made
_INLINE_CHARACTERS = 8192  # tokenizing less than this is quicker than handing it to a thread


T = TypeVar("T")
Encoded = tuple[str, list[int]]  # a prompt's text and its token ids
Resolved = dict[int, SamplingParameters]  # what became of a call's parameters, by the object's id: rows share them


class Prompt(msgspec.Struct, frozen=True):
    """One input made ready: its text as the model sees it, its token ids, its parameters, its LoRA adapter."""

    text: str
    token_ids: list[int]
    params: SamplingParameters
    adapter: Adapter | None = None


class PromptBuilder:
    """Makes prompts of a call's inputs. ``max_model_len`` counts prompt plus completion, in tokens."""

    def __init__(self, tokenization: Tokenization, max_model_len: int, adapters: Adapters) -> None:
        self._tokenization = tokenization
        self._adapters = adapters
        self._max_prompt_len = max_model_len - 1  # one token at least must fit behind the prompt

    async def build(self, call: InferenceCall) -> AsyncGenerator[list[Prompt | ModelError], None]:
        """Yield a prompt for each input, or in its place what is wrong with it; in order, a chunk at a time.

        While the caller works on a chunk the next one is rendered and tokenized.
        """
        resolved: Resolved = {}  # for this call only: callers' long lists of stop strings must not fill memory
        made = await self._make(call, 0, resolved)
        for following in range(CHUNK, len(call.inputs), CHUNK):
            ahead = asyncio.ensure_future(self._make(call, following, resolved))
            try:
                yield made
                made = await ahead
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        yield made

    async def _make(self, call: InferenceCall, start: int, resolved: Resolved) -> list[Prompt | ModelError]:
        """The chunk of a call's prompts that begins at ``start``."""
        inputs, params = call.inputs[start : start + CHUNK], call.params[start : start + CHUNK]
        if call.is_token_ids:
            made = [_or_error(self._from_token_ids, raw) for raw in inputs]
        else:
            made = await self._from_texts(inputs, call.is_chat)
        return [
            item if isinstance(item, ModelError) else self._check(*item, its_params, resolved)
            for item, its_params in zip(made, params, strict=True)
        ]

    async def _from_texts(self, inputs: Sequence[bytes], is_chat: bool) -> list[Encoded | ModelError]:
        """Render and tokenize inputs, the tokenizing in one call."""
        render = partial(self._render, self._render_chat if is_chat else read_text)
        rendered: list[str | ModelError] = []
        for start in range(0, len(inputs), SLICE):
            rendered += [_or_error(render, raw) for raw in inputs[start : start + SLICE]]
            await asyncio.sleep(0)
        encoded = iter(await self._encode([text for text in rendered if isinstance(text, str)], is_chat))
        return [text if isinstance(text, ModelError) else (text, next(encoded)) for text in rendered]

    def _render(self, read: Callable[[bytes], str], raw: bytes) -> str:
        """The input's text, if it can fit: to tokenize millions of characters takes seconds and gigabytes."""
        text = read(raw)
        if len(text) > _INLINE_CHARACTERS:
            most = self._max_prompt_len * self._tokenization.most_characters_a_token
            if len(text) > most:
                raise InvalidArgument(
                    f"the prompt has {len(text)} characters; {self._max_prompt_len} tokens are allowed, "
                    f"which hold at most {most}"
                )
        return text

    def _render_chat(self, raw: bytes) -> str:
        return self._tokenization.render_chat(read_messages(raw))

    def _from_token_ids(self, raw: bytes) -> Encoded:
        token_ids = read_token_ids(raw, self._tokenization.vocab_size)
        (text,) = self._tokenization.decode([token_ids], skip_special_tokens=False)
        return text, token_ids

    async def _encode(self, texts: list[str], is_chat: bool) -> list[list[int]]:
        if not texts:
            return []
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self._tokenization.encode(texts, add_special_tokens=not is_chat)
        return await asyncio.to_thread(self._tokenization.encode, texts, add_special_tokens=not is_chat)

    def _check(
        self, text: str, token_ids: list[int], params: SamplingParameters | InvalidArgument, resolved: Resolved
    ) -> Prompt | ModelError:
        if isinstance(params, InvalidArgument):
            return params
        if not 0 < len(token_ids) <= self._max_prompt_len:
            return InvalidArgument(f"the prompt has {len(token_ids)} tokens; allowed are 1 to {self._max_prompt_len}")
        try:
            adapter = self._adapters.find(params.lora_name)
        except InvalidArgument as exc:
            return exc.detached()
        return Prompt(text, token_ids, self._with_stop_ids(params, resolved), adapter)

    def _with_stop_ids(self, params: SamplingParameters, resolved: Resolved) -> SamplingParameters:
        """Replace stop strings that are single special tokens by their ids, which need no text to be compared."""
        if params.stop is None:
            return params
        if id(params) not in resolved:
            resolved[id(params)] = self._resolve_stops(params)
        return resolved[id(params)]

    def _resolve_stops(self, params: SamplingParameters) -> SamplingParameters:
        ids = {text: self._tokenization.special_token_id(text) for text in params.stop_strings}
        special = tuple(token_id for token_id in ids.values() if token_id is not None)
        others = tuple(text for text, token_id in ids.items() if token_id is None)
        stop_token_ids = ((params.stop_token_ids or ()) + special) or None
        return msgspec.structs.replace(params, stop=others or None, stop_token_ids=stop_token_ids)


def _or_error(read: Callable[[bytes], T], raw: bytes) -> T | ModelError:
    """What ``read`` makes of one input, or its error as data: one bad row must not cost the others."""
    try:
        return read(raw)
    except ModelError as exc:
        return exc.detached()


def read_token_ids(raw: bytes, vocab_size: int) -> list[int]:
    """Decode one ``text_input`` item that holds a JSON list of token ids. Raises :class:`InvalidArgument`."""
    ids = decode_json(raw, "text_input")
    if not isinstance(ids, list) or not ids or not all(type(i) is int and 0 <= i < vocab_size for i in ids):
        raise InvalidArgument(f"'text_input' must be a JSON list of token ids from 0 to {vocab_size - 1}")
    return ids


def read_text(raw: bytes) -> str:
    """Decode one ``text_input`` item. Raises :class:`InvalidArgument`."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"'text_input' is not valid UTF-8 at byte {exc.start}") from exc
    if not text:
        raise InvalidArgument("'text_input' is an empty text; at least one character is needed")
    return text


def read_messages(raw: bytes) -> Sequence[dict[str, Any]]:
    """Decode one ``messages`` item: a JSON list of objects with ``role`` and ``content``. Raises InvalidArgument."""
    messages = decode_json(raw, "messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidArgument("messages: must be a JSON list of at least one message")
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidArgument(f"messages[{place}]: must be an object with 'role' and 'content'")
        for name in ("role", "content"):
            if not isinstance(message.get(name), str):
                raise InvalidArgument(f"messages[{place}].{name}: must be a string")
    return messages
