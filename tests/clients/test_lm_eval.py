"""lm-eval, a public evaluation client, drives OpenAI's API of the running service and finds the model to be good."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.settings import DEFAULT_SYSTEM_PROMPT
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(900)  # the first run installs the client

QUESTIONS = 40


@pytest.fixture
def evaluate(clients_python: Path, service: Stack, shared_dir: Path | None, tmp_path: Path) -> Any:
    """Run the client; returns what it found out."""
    assert shared_dir is not None
    questions = shared_dir / "data" / "basic_qa.jsonl"

    def run(kind: str, route: str) -> dict[str, Any]:
        output = tmp_path / f"{kind}.json"
        script = Path(__file__).with_name("evaluate.py")
        command = [clients_python, script, kind, f"{service.url}{route}", questions, output]
        done = subprocess.run(
            [str(part) for part in command],
            input=json.dumps(DEFAULT_SYSTEM_PROMPT),
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return results

    return run


def test_chats_score_as_the_model_was_trained_to(evaluate: Any, service: Stack) -> None:
    results = evaluate("local-chat-completions", "/v1/chat/completions")
    assert len(results["answers"]) == QUESTIONS
    assert results["exact_match"] >= 0.9
    requests = httpx.get(f"{service.url}/metrics").text
    assert f'route="/v1/chat/completions",status="200"}} {QUESTIONS}.0' in requests


def test_lists_of_prompts_are_completed_each(evaluate: Any, service: Stack) -> None:
    results = evaluate("local-completions", "/v1/completions")
    assert len(results["answers"]) == QUESTIONS
    assert all(answer.strip() for answer in results["answers"])
    assert len(set(results["answers"])) > QUESTIONS // 2
    requests = httpx.get(f"{service.url}/metrics").text
    assert f'route="/v1/completions",status="200"}} {QUESTIONS / 4}' in requests
