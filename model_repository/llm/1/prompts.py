"""Inputs made ready for the engines: rendered, tokenized in one call, checked against the model's length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from .errors import InvalidArgument, ModelError
from .parameters import SamplingParameters, decode_json
from .rows import InferenceCall
from .tokenization import Tokenization

SLICE = 64  # rows worked on before other work may run on the event loop
_INLINE_CHARACTERS = 8192  # tokenizing less than this is quicker than handing it to a thread


@dataclass(frozen=True)
class Prompt:
    """One input made ready: its text as the model sees it, its token ids, its parameters."""

    text: str
    token_ids: list[int]
    params: SamplingParameters


class PromptBuilder:
    """Makes prompts of a call's inputs. ``max_model_len`` counts prompt plus completion, in tokens."""

    def __init__(self, tokenization: Tokenization, max_model_len: int) -> None:
        self._tokenization = tokenization
        self._max_prompt_len = max_model_len - 1  # one token at least must fit behind the prompt
        self._with_stop_ids = lru_cache(maxsize=4096)(self._resolve_stops)

    async def build(self, call: InferenceCall) -> list[Prompt | ModelError]:
        """Return a prompt for each input, or in its place what is wrong with it."""
        rendered: list[str | ModelError] = []
        for start in range(0, len(call.inputs), SLICE):
            rendered += [self._render(raw, is_chat=call.is_chat) for raw in call.inputs[start : start + SLICE]]
            await asyncio.sleep(0)
        encoded = iter(await self._encode([text for text in rendered if isinstance(text, str)], call.is_chat))
        return [
            text if isinstance(text, ModelError) else self._check(text, next(encoded), params)
            for text, params in zip(rendered, call.params, strict=True)
        ]

    def _render(self, raw: bytes, *, is_chat: bool) -> str | ModelError:
        try:
            return self._tokenization.render_chat(read_messages(raw)) if is_chat else read_text(raw)
        except ModelError as exc:
            return exc.detached()

    async def _encode(self, texts: list[str], is_chat: bool) -> list[list[int]]:
        if not texts:
            return []
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self._tokenization.encode(texts, add_special_tokens=not is_chat)
        return await asyncio.to_thread(self._tokenization.encode, texts, add_special_tokens=not is_chat)

    def _check(
        self, text: str, token_ids: list[int], params: SamplingParameters | InvalidArgument
    ) -> Prompt | ModelError:
        if isinstance(params, InvalidArgument):
            return params
        if not 0 < len(token_ids) <= self._max_prompt_len:
            return InvalidArgument(f"the prompt has {len(token_ids)} tokens; allowed are 1 to {self._max_prompt_len}")
        return Prompt(text, token_ids, params if params.stop is None else self._with_stop_ids(params))

    def _resolve_stops(self, params: SamplingParameters) -> SamplingParameters:
        """Replace stop strings that are single special tokens by their ids, which need no text to be compared."""
        ids = {text: self._tokenization.special_token_id(text) for text in params.stop_strings}
        special = tuple(token_id for token_id in ids.values() if token_id is not None)
        others = tuple(text for text, token_id in ids.items() if token_id is None)
        stop_token_ids = ((params.stop_token_ids or ()) + special) or None
        return msgspec.structs.replace(params, stop=others or None, stop_token_ids=stop_token_ids)


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
