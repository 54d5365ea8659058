"""``python -m tools.quantize``: all methods on the course's model; test_real_service.py serves one of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tools.weights import shared_file
from tools.console import run
from tools.errors import UsageError
from tools.evaluate.scoring import rouge_l
from tools.quantize.__main__ import main
from tools.quantize.calibration import chat, draw
from tools.quantize.recipes import group_size
from tools.questions import Question, read_questions

FORMATS = {"awq": "pack-quantized", "gptq": "pack-quantized", "fp8": "float-quantized"}


@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", FORMATS)
def test_a_quantized_model_is_smaller_and_answers_as_before(
    quantized: dict[str, Any], shared_dir: Path | None, method: str
) -> None:
    assert quantized[method]["status"] == 0
    folder = Path(quantized["folder"]) / method
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", FORMATS[method])
    result = json.loads((folder.parent / f"{method}.json").read_text())
    # Most of this small model is its vocabulary, which stays as it is.
    assert result["megabytes"] < 0.85 * result["megabytes_before"]
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044
    questions = read_questions(shared_file(shared_dir, "data/basic_qa.jsonl"), limit=5)
    pairs = zip(quantized[method]["answers"], questions, strict=True)
    assert sum(rouge_l(answer, question.reference) for answer, question in pairs) / 5 > 0.9


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--method", "awq"], "--method awq needs --calibration"),
        (["--method", "fp8", "--samples", "0"], "--samples 0: at least 1"),
        (["--method", "fp8", "--max-length", "1"], "--max-length 1: at least 16"),
        (["--method", "fp8", "--group-size", "-1"], "--group-size -1"),
        (["--method", "fp8"], "is quantized already"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {}}')
    (tmp_path / "model.safetensors").write_text("")
    assert run(main, ["--model", str(tmp_path), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_calibration_texts_are_drawn_at_random_and_alike_each_time() -> None:
    questions = [Question(f"{number}", "x") for number in range(100)]
    drawn = draw(questions, 10, seed=1)
    assert drawn == draw(questions, 10, seed=1)
    assert drawn != draw(questions, 10, seed=2)
    assert len(set(drawn)) == 10
    assert sorted(draw(questions, 1000, seed=1), key=lambda one: int(one.prompt)) == questions


def test_the_system_prompt_goes_first() -> None:
    roles = [message["role"] for message in chat(Question("a", "b"), "be short")]
    assert roles == ["system", "user", "assistant"]
    assert [message["role"] for message in chat(Question("a", "b"), "")] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("wanted", "widths", "size"), [(0, [256, 1024], 128), (0, [256, 704], 64), (32, [256, 704], 32)]
)
def test_the_group_size_divides_every_layers_width(wanted: int, widths: list[int], size: int) -> None:
    assert group_size(wanted, widths) == size


@pytest.mark.parametrize("wanted", [0, 128])
def test_widths_without_a_common_group_size_are_named(wanted: int) -> None:
    with pytest.raises(UsageError, match=r"\[100, 256\]"):
        group_size(wanted, [256, 100])
