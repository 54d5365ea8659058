"""Generations before the model is ready, on every engine: they compile, capture and fill the prefix cache."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import ModelError, StartupError
from .generation import Generator
from .logs import logger
from .parameters import SamplingParameters
from .rows import InferenceCall
from .settings import ModelSettings

_TOKENS = 8
_PLAIN_QUESTION = "1 + 1 = ?"
_QUESTION_FIELDS = ("prompt", "instruction", "question")


async def warm_up(generator: Generator, settings: ModelSettings) -> None:
    """Generate a few tokens for a plain question on every engine, then for the first ones of ``WARMUP_DATA_PATH``.

    These go where a caller's would, which is not to all engines. Ends after ``WARMUP_MAX_S`` seconds, finished or not.
    Raises :class:`StartupError` when the model cannot generate.
    """
    warmup = settings.warmup
    questions = read_questions(warmup.data_path, warmup.num_samples)
    plain = dataclasses.replace(_call([_PLAIN_QUESTION], settings.system_prompt), on_each_engine=True)
    calls = [plain, _call(questions, settings.system_prompt)] if questions else [plain]
    started = time.monotonic()
    try:
        await asyncio.wait_for(_generate(generator, calls, max(1, warmup.repeat)), timeout=warmup.max_s)
        logger.info("warm-up: %d questions in %.1f s", 1 + len(questions), time.monotonic() - started)
    except asyncio.TimeoutError:
        logger.warning("warm-up: cut after %.0f s (WARMUP_MAX_S)", warmup.max_s)


async def _generate(generator: Generator, calls: Sequence[InferenceCall], repeat: int) -> None:
    for _ in range(repeat):
        errors: list[ModelError] = []
        answered = 0
        for call in calls:
            async for rows in generator.run(call):
                errors += [row.error for row in rows if row.error is not None]
                answered += sum(row.error is None for row in rows)
        if not answered:
            raise StartupError(f"the model answers no question of the warm-up: {errors[0] if errors else 'no rows'}")


def _call(questions: list[str], system_prompt: str) -> InferenceCall:
    system = {"role": "system", "content": system_prompt}
    chats = [json.dumps([system, {"role": "user", "content": question}]).encode() for question in questions]
    params = SamplingParameters(max_tokens=_TOKENS, temperature=0.0)
    return InferenceCall("warm-up", chats, is_chat=True, params=[params] * len(chats), partial=True)


def read_questions(path: str | None, limit: int) -> list[str]:
    """The first ``limit`` questions of a JSONL file; a file that cannot be used is named in the log and skipped.

    A line is an object with ``messages`` (the last user message counts), ``prompt``, ``instruction`` or ``question``.
    """
    if path is None or limit == 0:
        return []
    try:
        with Path(path).open(encoding="utf-8") as lines:
            questions = []
            for question in _questions(lines):
                questions.append(question)
                if len(questions) >= limit:
                    break
    except (OSError, ValueError) as exc:
        logger.warning("WARMUP_DATA_PATH=%s is skipped: %s", path, exc)
        return []
    if not questions:
        logger.warning("WARMUP_DATA_PATH=%s is skipped: it holds no question", path)
    return questions


def _questions(lines: Any) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"line {number} is not valid JSON") from exc
        question = _question(item)
        if question is not None:
            yield question


def _question(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    messages = item.get("messages")
    chat = messages if isinstance(messages, list) else []
    asked = [m for m in chat if isinstance(m, dict) and m.get("role") == "user"]
    candidates = [m.get("content") for m in asked[-1:]] + [item.get(name) for name in _QUESTION_FIELDS]
    return next((text for text in candidates if isinstance(text, str) and text.strip()), None)
