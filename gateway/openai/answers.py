"""Answers of OpenAI's API: whole ones, and the events of a stream. One class for each of the two forms."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from gateway.openai.logprobs import ChatLogprobs, CompletionLogprobs
from gateway.triton.samples import Piece, RawLogprobs, TokenSlice


@dataclass
class Choice:
    """One row as it has come so far."""

    text: str = ""
    finish_reason: str | None = None
    logprobs: list[RawLogprobs] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish_reason = piece.finish_reason or self.finish_reason
        if piece.logprobs is not None:
            self.logprobs.append(piece.logprobs)


class Usage:
    """Tokens of one request: a prompt counts once, however many samples it has."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._prompts: dict[int, int] = {}
        self.completion_tokens = 0

    @property
    def prompt_tokens(self) -> int:
        return sum(self._prompts.values())

    def add(self, piece: Piece) -> None:
        self._prompts[piece.row // self._n] = piece.num_input_tokens
        self.completion_tokens += piece.num_output_tokens

    def shown(self) -> dict[str, int]:
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class AnswerForm(Protocol):
    """What differs between chats and completions."""

    def add_logprobs(self, row: int, tokens: TokenSlice) -> None:
        """Take log probabilities of a row's next tokens; its choice, or its next event, shows them."""

    def choice(self, row: int, choice: Choice) -> dict[str, Any]:
        """One choice of an answer that is not streamed."""

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """The answer of a request that is not streamed."""

    def events(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The stream's events for one piece."""

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        """The stream's last event: usage, no choices."""


class ChatForm:
    """``chat.completion`` and ``chat.completion.chunk``. ``top_logprobs`` is ``None``: none were asked for."""

    def __init__(self, model: str, top_logprobs: int | None) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._has_logprobs = top_logprobs is not None
        self._logprobs = defaultdict[int, ChatLogprobs](partial(ChatLogprobs, top_logprobs or 0))
        self._begun: set[int] = set()

    def add_logprobs(self, row: int, tokens: TokenSlice) -> None:
        self._logprobs[row].add(tokens)

    def choice(self, row: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": row,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs[row].take() if self._has_logprobs else None,
            "finish_reason": choice.finish_reason,
        }

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage.shown()}

    def events(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.row not in self._begun:
            self._begun.add(piece.row)
            yield self._chunk([self._delta(piece.row, {"role": "assistant", "content": ""})])
        if piece.text or piece.finish_reason or piece.logprobs:
            choice = self._delta(piece.row, {"content": piece.text} if piece.text else {})
            choice["logprobs"] = self._logprobs[piece.row].take() if piece.logprobs else None
            choice["finish_reason"] = piece.finish_reason or None
            yield self._chunk([choice])

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._chunk([]), "usage": usage.shown()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    @staticmethod
    def _delta(index: int, delta: dict[str, str]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


class CompletionForm:
    """``text_completion``, whole and streamed. ``prompts`` are said first in a stream that echoes, else empty."""

    def __init__(self, model: str, *, logprobs: bool, n: int = 1, prompts: Sequence[str] = ()) -> None:
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._has_logprobs = logprobs
        self._n = n
        self._prompts = prompts
        self._logprobs = defaultdict[int, CompletionLogprobs](CompletionLogprobs)
        self._begun: set[int] = set()

    def add_logprobs(self, row: int, tokens: TokenSlice) -> None:
        self._logprobs[row].add(tokens)

    def choice(self, row: int, choice: Choice) -> dict[str, Any]:
        return self._choice(row, choice.text, choice.finish_reason, self._taken(row))

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {**self._head, "choices": choices, "usage": usage.shown()}

    def events(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.row not in self._begun:
            self._begun.add(piece.row)
            if self._prompts:
                prompt = self._prompts[piece.row // self._n]
                yield {**self._head, "choices": [self._choice(piece.row, prompt, None, None)]}
        if piece.text or piece.finish_reason or piece.logprobs:
            choice = self._choice(piece.row, piece.text, piece.finish_reason or None, self._taken(piece.row))
            yield {**self._head, "choices": [choice]}

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage.shown()}

    @staticmethod
    def _choice(index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _taken(self, row: int) -> dict[str, Any] | None:
        return self._logprobs[row].take() if self._has_logprobs else None
