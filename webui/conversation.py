"""One turn of a conversation: what the model is sent, and what the page shows while the answer comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from webui.client import GatewayClient, Generation, Message, Piece
from webui.errors import WebError
from webui.passages import Passage, best, cut, with_passages
from webui.stream import merged
from webui.texts import Language, say


@dataclass(frozen=True)
class Wish:
    """What is set on the page when a question is sent."""

    generation: Generation = field(default_factory=Generation)
    system_prompt: str = ""
    with_history: bool = True
    material: str = ""
    passages: int = 3


@dataclass(frozen=True)
class Turn:
    """What is to be seen: the answer so far, a line about how it goes, and the passages that were sent along."""

    question: str
    passages: str
    answer: str = ""
    notice: str = ""

    def messages(self) -> list[Message]:
        """Question and answer as messages of the conversation."""
        answered: list[Message] = [{"role": "assistant", "content": self.answer}] if self.answer else []
        return [{"role": "user", "content": self.question}, *answered]


async def ask(
    client: GatewayClient,
    language: Language,
    question: str,
    conversation: Sequence[Mapping[str, Any]],
    wish: Wish,
    stop: asyncio.Event,
) -> AsyncGenerator[Turn, None]:
    """Send the question and follow its answer; the last turn tells how it ended, errors included."""
    found = best(cut(wish.material), question, wish.passages)
    messages = messages_for(language, question, conversation, wish, found)
    turn = Turn(question, shown_passages(language, wish.material, found), notice=say(language, "chat.running"))
    yield turn
    began, end = time.monotonic(), Piece()
    try:
        await client.require_ready()
        async with aclosing(merged(client.stream_chat(messages, wish.generation), stop)) as batches:
            async for pieces in batches:
                turn = replace(turn, answer=turn.answer + "".join(piece.text for piece in pieces))
                end = _end_of([end, *pieces])
                yield turn
        notice = say(language, "chat.stopped") if stop.is_set() else _told(language, end, time.monotonic() - began)
    except WebError as exc:
        notice = exc.sentence(language)
    yield replace(turn, notice=notice)


def messages_for(
    language: Language,
    question: str,
    conversation: Sequence[Mapping[str, Any]],
    wish: Wish,
    passages: Sequence[Passage] = (),
) -> list[Message]:
    """System prompt, earlier turns that were answered, and the question with its passages before it."""
    system = [{"role": "system", "content": wish.system_prompt}] if wish.system_prompt.strip() else []
    asked = with_passages(question, passages, say(language, "material.heading"), say(language, "material.ask"))
    earlier = answered_turns(conversation) if wish.with_history else []
    return [*system, *earlier, {"role": "user", "content": asked}]


def answered_turns(conversation: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages of all questions that have an answer: a template may insist on roles taking turns."""
    messages = [{"role": str(message["role"]), "content": text_of(message["content"])} for message in conversation]
    pairs = pairwise(messages)
    return [one for pair in pairs if [m["role"] for m in pair] == ["user", "assistant"] for one in pair]


def text_of(content: Any) -> str:
    """The text of a message as Gradio gives it back: a text, or parts of which some are texts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)


def shown_passages(language: Language, material: str, passages: Sequence[Passage]) -> str:
    """What stands beside the answer; empty where there is no material."""
    if not material.strip():
        return ""
    return "\n\n".join(f"[{one.number}] {one.text}" for one in passages) or say(language, "material.none")


def _end_of(pieces: Sequence[Piece]) -> Piece:
    """What the pieces together say about the end."""
    reasons = [piece.finish_reason for piece in pieces if piece.finish_reason]
    counts = [piece.completion_tokens for piece in pieces if piece.completion_tokens is not None]
    return Piece(finish_reason=reasons[-1] if reasons else None, completion_tokens=counts[-1] if counts else None)


def _told(language: Language, end: Piece, seconds: float) -> str:
    tokens = end.completion_tokens or 0
    key = "chat.cut" if end.finish_reason == "length" else "chat.done"
    return say(language, key, tokens=tokens, seconds=f"{seconds:.1f}", rate=f"{tokens / max(seconds, 1e-3):.1f}")
