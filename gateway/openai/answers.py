"""Answers of OpenAI's API: whole ones, and the events of a stream. One class for each of the two forms."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.openai.logprobs import chat_logprobs, completion_logprobs
from gateway.triton.samples import Piece, TokenLogprobs


@dataclass
class Choice:
    """One row as it has come so far."""

    text: str = ""
    finish_reason: str | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.logprobs += piece.logprobs
        self.token_ids += piece.token_ids


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

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The answer of a request that is not streamed."""

    def events(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The stream's events for one piece."""

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        """The stream's last event: usage, no choices."""


class ChatForm:
    """``chat.completion`` and ``chat.completion.chunk``. ``top_logprobs`` is ``None``: none were asked for."""

    def __init__(self, model: str, top_logprobs: int | None) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._top = top_logprobs
        self._begun: set[int] = set()

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        shown = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._logprobs(choice.logprobs, choice.token_ids),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(choices)
        ]
        return {**self._head, "object": "chat.completion", "choices": shown, "usage": usage.shown()}

    def events(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.row not in self._begun:
            self._begun.add(piece.row)
            yield self._chunk([self._delta(piece.row, {"role": "assistant", "content": ""})])
        if piece.text or piece.finish_reason or piece.logprobs:
            choice = self._delta(piece.row, {"content": piece.text} if piece.text else {})
            choice["logprobs"] = self._logprobs(piece.logprobs, piece.token_ids) if piece.logprobs else None
            choice["finish_reason"] = piece.finish_reason or None
            yield self._chunk([choice])

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._chunk([]), "usage": usage.shown()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    @staticmethod
    def _delta(index: int, delta: dict[str, str]) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, positions: Sequence[TokenLogprobs], token_ids: Sequence[int]) -> dict[str, Any] | None:
        return None if self._top is None else chat_logprobs(positions, token_ids, self._top)


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
        self._offsets: dict[int, int] = {}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        shown = [
            self._choice(index, choice.text, choice.finish_reason, self._logprobs(choice, 0))
            for index, choice in enumerate(choices)
        ]
        return {**self._head, "choices": shown, "usage": usage.shown()}

    def events(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.row not in self._offsets:
            self._offsets[piece.row] = 0
            if self._prompts:
                prompt = self._prompts[piece.row // self._n]
                yield {**self._head, "choices": [self._choice(piece.row, prompt, None, None)]}
        if piece.text or piece.finish_reason or piece.logprobs:
            logprobs = self._logprobs(piece, self._offsets[piece.row])
            if logprobs is not None:
                self._offsets[piece.row] += sum(map(len, logprobs["tokens"]))
            choice = self._choice(piece.row, piece.text, piece.finish_reason or None, logprobs)
            yield {**self._head, "choices": [choice]}

    def usage_event(self, usage: Usage) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage.shown()}

    @staticmethod
    def _choice(index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, source: Choice | Piece, text_offset: int) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        return completion_logprobs(source.logprobs, source.token_ids, text_offset)
