"""Log probabilities in the two forms that OpenAI's API has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.triton.samples import TokenLogprobs

_LOWEST = -9999.0  # what OpenAI's and vLLM's answers say for minus infinity, which JSON cannot
_LAST_RANK = 2**31


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
