"""Calibration texts: question and answer in the model's own chat format, a random but repeatable choice of them."""

from __future__ import annotations

import random
from typing import Any

from tools.errors import UsageError
from tools.quantize.options import Quantization
from tools.questions import Question, read_questions


def draw(questions: list[Question], count: int, seed: int) -> list[Question]:
    """Return ``count`` different questions, all if there are fewer; the same ones for the same seed."""
    return random.Random(seed).sample(questions, min(count, len(questions)))


def chat(question: Question, system_prompt: str) -> list[dict[str, str]]:
    """The messages of one pair."""
    messages = [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": question.reference}]
    return [{"role": "system", "content": system_prompt}, *messages] if system_prompt else messages


def calibration_set(job: Quantization, tokenizer: Any) -> Any:
    """Return token ids as a data set of llm-compressor's. Raises :class:`UsageError`."""
    from datasets import Dataset

    if job.calibration is None:
        raise UsageError("no calibration texts")
    rows = []
    for question in draw(read_questions(job.calibration), job.samples, job.seed):
        text = _text(tokenizer, chat(question, job.system_prompt))
        encoded = tokenizer(text, truncation=True, max_length=job.max_length, add_special_tokens=False)
        rows.append({"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]})
    return Dataset.from_list(rows)


def _text(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    if tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return "\n".join(message["content"] for message in messages)
