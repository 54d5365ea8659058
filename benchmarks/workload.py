"""What is asked: seeded questions, the same for every peer, other ones in every repeat."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_THINGS = ("线程块", "共享内存", "数据并行性", "归约", "卷积", "稀疏矩阵", "原子操作", "内存合并", "占用率", "屏障同步")


@dataclass(frozen=True)
class Workload:
    """N chats of a system prompt and a question. ``plain``: greedy, no penalties, exactly ``tokens`` new tokens each.

    Otherwise the service's defaults: penalties, and an answer ends where the model ends it.
    """

    questions: tuple[str, ...]
    system_prompt: str
    tokens: int
    plain: bool = True

    @property
    def chats(self) -> list[list[dict[str, str]]]:
        """One list of messages a question."""
        system = {"role": "system", "content": self.system_prompt}
        return [[system, {"role": "user", "content": question}] for question in self.questions]

    @property
    def sampling(self) -> dict[str, Any]:
        """By vLLM's names."""
        penalties = (1.0, 0.0) if self.plain else (1.05, 0.1)
        return {
            "max_tokens": self.tokens,
            "temperature": 0.0,
            "repetition_penalty": penalties[0],
            "frequency_penalty": penalties[1],
            "ignore_eos": self.plain,
        }

    @property
    def predict_body(self) -> dict[str, Any]:
        """For the service's `/predict`."""
        sampling = {name: value for name, value in self.sampling.items() if name != "max_tokens"}
        body = {"max_new_tokens": self.tokens, "system_prompt": self.system_prompt, **sampling}
        return {"prompt": list(self.questions), **body}


def make(count: int, tokens: int, repeat: int, plain: bool = True, environ: Mapping[str, str] = os.environ) -> Workload:
    """``count`` questions. A number before the system prompt keeps one repeat from finding another's prefix cache."""
    chance = random.Random(repeat)
    known = _course_questions(environ) or [f"什么是{thing}？" for thing in _THINGS]
    questions = tuple(f"{chance.choice(known)}（{number}）" for number in range(count))
    return Workload(
        questions, f"[{repeat}] 你是课程的答题助手。只输出答案正文，用词与教材一致，不复述题目。", tokens, plain
    )


def _course_questions(environ: Mapping[str, str]) -> list[str]:
    shared = Path(environ.get("SHARED_DIR") or ROOT.parent / "shared")
    file = shared / "data" / "course_qa.jsonl"
    if not file.is_file():
        return []
    with file.open(encoding="utf-8") as lines:
        chats = [json.loads(line)["messages"] for line in lines]
    return [message["content"] for chat in chats for message in chat if message["role"] == "user"]
