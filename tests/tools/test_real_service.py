"""The tools on the real service: real Triton, the course's model, and a model that was quantized here, by vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.env_file import parse
from tests.conftest import ROOT
from tests.tools.weights import shared_file
from tools.console import run
from tools.evaluate.__main__ import main as evaluate
from tools.tune.__main__ import main as tune
from tools.tune.service import running_service

SERVICE = [str(ROOT / ".venv" / "bin" / "python"), "-m", "runtime", "serve"]
READY_S = 240.0  # two busy cores, a cold disk cache


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_a_quantized_model_is_served_by_vllm_and_scores_as_before(
    quantized: dict[str, Any], shared_dir: Path | None, tmp_path: Path
) -> None:
    model = Path(quantized["folder"]) / "awq"
    settings = {"MODEL_DIR": str(model), "BATCH_MODE": "1", "FORCE_VLLM": "1", "DTYPE": "bfloat16"}
    out = tmp_path / "run"
    with running_service(SERVICE, settings, tmp_path / "service.log", READY_S) as url:
        arguments = [shared_file(shared_dir, "data/basic.docx"), "--url", url, "--tokenizer", model, "--out", out]
        assert run(evaluate, ["run", *map(str, arguments), "--threshold", "0.9"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["questions"], summary["failed"], summary["concurrency"]) == (100, 0, 0)  # GET / said `batch`
    assert summary["model"] == "awq"
    assert summary["tokens_per_s"] > 0


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_two_trials_on_the_real_service(
    course_qa_model: Path, shared_dir: Path | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space, out = tmp_path / "space.toml", tmp_path / "study"
    space.write_text(
        '[fixed]\nUSE_VLLM = "false"\nBATCH_MODE = 1\n[search]\nMAX_NEW_TOKENS = [64, 4]\n[start]\nMAX_NEW_TOKENS = 4\n'
    )
    questions = shared_file(shared_dir, "data/basic_qa.jsonl")
    arguments = [space, questions, "--model", course_qa_model, "--out", out, "--threshold", 0.9, "--limit", 8]
    arguments += ["--trials", 2, "--repeats", 1, "--seed", 1, "--ready-timeout", READY_S]
    status = run(tune, [str(one) for one in arguments])
    result = json.loads((out / "result.json").read_text())
    assert [trial["state"] for trial in result["trials"]] == ["complete", "complete"], result["trials"]
    assert result["trials"][0]["score"] < 0.9  # four tokens are no answer
    assert status == 0
    assert result["best"]["settings"] == {"MAX_NEW_TOKENS": 64}
    assert result["best"]["score"] > 0.9
    written = parse((out / "best.env").read_text(), "best.env")
    assert written["MAX_NEW_TOKENS"] == "64"
