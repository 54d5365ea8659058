"""What is slow is done once: quantizing, and a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tools.weights import PROGRAMS, last_json, run_with_torch, shared_file

# What the course's model was trained with: the service's default.
SYSTEM_PROMPT = (
    "你是《大规模并行处理器程序设计》课程的答题助手。只输出答案正文：直接给出定义、关键术语和结论，用词与教材一致；"
    "不复述题目，不写思考过程、寒暄或举例。题目要求代码时，只给最短可用的核心代码。"
)


@pytest.fixture(scope="session")
def quantized(
    course_qa_model: Path, shared_dir: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The course's model by all methods: method → status and answers; ``folder`` holds a model folder for each."""
    folder = tmp_path_factory.mktemp("quantized")
    questions = shared_file(shared_dir, "data/basic_qa.jsonl")
    done = run_with_torch(PROGRAMS / "quantize_all.py", course_qa_model, questions, folder, SYSTEM_PROMPT)
    results: dict[str, Any] = last_json(done)
    return {**results, "folder": str(folder)}
