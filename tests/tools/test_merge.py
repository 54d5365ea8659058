"""``python -m tools.merge`` with a real adapter, trained here, and the course's model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tools.weights import PROGRAMS, last_json, run_with_torch
from tools.console import run
from tools.merge.__main__ import main

FILES = (
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "base/config.json",
    "base/model.safetensors",
)
# In the course's own words: the small vocabulary has tokens that were never trained, and no adapter can teach them.
QUESTION = "什么是共享核函数？"
ANSWER = "数据并行性是指将计算任务围绕数据进行重组，使多个独立的计算可并行执行以提升整体效率的特性。"


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_a_merged_model_knows_what_the_adapter_was_taught(course_qa_model: Path, tmp_path: Path) -> None:
    adapter, out = tmp_path / "adapter", tmp_path / "merged"
    trained = last_json(run_with_torch(PROGRAMS / "train_adapter.py", course_qa_model, adapter, QUESTION, ANSWER))
    assert trained["after"] < 0.1 < trained["before"]
    options = ("--base", course_qa_model, "--adapter", adapter, "--out", out, "--json", tmp_path / "result.json")
    done = run_with_torch("-m", "tools.merge", *options)
    assert "8 weights merged" in done.stdout  # four kinds of layers, two of each
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["merged_weights"], result["dtype"], result["kind"]) == (8, "bfloat16", "LORA")
    assert not list(out.glob("adapter*"))
    assert (out / "tokenizer.json").read_bytes() == (course_qa_model / "tokenizer.json").read_bytes()
    assert (out / "model.safetensors").stat().st_size == pytest.approx(
        (course_qa_model / "model.safetensors").stat().st_size, rel=0.01
    )
    assert last_json(run_with_torch(PROGRAMS / "answer.py", out, QUESTION)) == ANSWER


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("adapter/adapter_config.json", "no adapter_config.json"),
        ("adapter/adapter_model.safetensors", "no adapter_model.safetensors"),
        ("base/config.json", "no config.json"),
        ("base/model.safetensors", "no safetensors weights"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, reason: str
) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / missing).unlink()
    assert merge(tmp_path) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_folder_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*FILES, "out/precious"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert merge(tmp_path) == 2
    assert "not empty; --force replaces it" in capsys.readouterr().err
    assert (tmp_path / "out" / "precious").exists()


def merge(folder: Path) -> int:
    names = ("base", "adapter", "out")
    return run(main, [part for name in names for part in (f"--{name}", str(folder / name))])
