"""Log probabilities in the two forms that OpenAI's API has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.triton.samples import TokenLogprobs, TokenSlice

_LOWEST = -9999.0  # what OpenAI's and vLLM's answers say for minus infinity, which JSON cannot
_LAST_RANK = 2**31


class ChatLogprobs:
    """One row's, in the form of chats, made some tokens at a time."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._content = _JsonList()

    def add(self, tokens: TokenSlice) -> None:
        """Put the next tokens behind those before."""
        self._content.extend(chat_logprobs(tokens.positions, tokens.token_ids, self._top)["content"])

    def take(self) -> dict[str, Any]:
        """What was added since the last time, for orjson."""
        return {"content": self._content.take(), "refusal": None}


class CompletionLogprobs:
    """One row's, in the form of completions, made some tokens at a time."""

    def __init__(self) -> None:
        self._text_offset = 0
        self._lists = {name: _JsonList() for name in completion_logprobs((), (), 0)}

    def add(self, tokens: TokenSlice) -> None:
        """Put the next tokens behind those before."""
        made = completion_logprobs(tokens.positions, tokens.token_ids, self._text_offset)
        self._text_offset += sum(map(len, made["tokens"]))
        for name, items in made.items():
            self._lists[name].extend(items)

    def take(self) -> dict[str, Any]:
        """What was added since the last time, for orjson."""
        return {name: items.take() for name, items in self._lists.items()}


class _JsonList:
    """A list that is kept as JSON: its items as objects would take ten times the memory."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def extend(self, items: Sequence[Any]) -> None:
        if items:
            self._parts.append(orjson.dumps(items)[1:-1])

    def take(self) -> orjson.Fragment:
        whole = b"[%b]" % b",".join(self._parts)
        self._parts.clear()
        return orjson.Fragment(whole)


def chat_logprobs(positions: Sequence[TokenLogprobs], token_ids: Sequence[int], top: int) -> dict[str, Any]:
    """The form of chats: for each token the token itself and the ``top`` likeliest ones."""
    content = []
    for position, token_id in zip(positions, token_ids, strict=False):
        ranked = sorted(position.values(), key=lambda item: item.get("rank") or _LAST_RANK)
        top_logprobs = [_chat_token(item) for item in ranked[:top]]
        content.append({**_chat_token(position[str(token_id)]), "top_logprobs": top_logprobs})
    return {"content": content, "refusal": None}


def completion_logprobs(
    positions: Sequence[TokenLogprobs], token_ids: Sequence[int], text_offset: int
) -> dict[str, Any]:
    """The form of completions: parallel lists. ``text_offset`` is where the first token begins in the text."""
    chosen = [position[str(token_id)] for position, token_id in zip(positions, token_ids, strict=False)]
    tokens = [_token(item) for item in chosen]
    offsets = [text_offset]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    return {
        "text_offset": offsets[: len(tokens)],
        "token_logprobs": [_logprob(item) for item in chosen],
        "tokens": tokens,
        "top_logprobs": [_by_token(position) for position in positions],
    }


def _by_token(position: TokenLogprobs) -> dict[str, float]:
    """Tokens that look alike (parts of a character) share an entry: the likeliest one's."""
    found: dict[str, float] = {}
    for item in position.values():
        token = _token(item)
        found[token] = max(found.get(token, _LOWEST), _logprob(item))
    return found


def _chat_token(item: Mapping[str, Any]) -> dict[str, Any]:
    token = _token(item)
    return {"token": token, "logprob": _logprob(item), "bytes": list(token.encode("utf-8", "replace"))}


def _token(item: Mapping[str, Any]) -> str:
    return item.get("decoded_token") or ""


def _logprob(item: Mapping[str, Any]) -> float:
    value = item.get("logprob")
    return _LOWEST if value is None else max(value, _LOWEST)
