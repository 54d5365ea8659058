"""Speculative decoding: vLLM's configuration, and what happens where a method cannot be had."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from llm_model.engines.speculation import speculative_config
from llm_model.errors import StartupError
from llm_model.settings import ModelSettings

NEWEST = (0, 32, 0)


@pytest.fixture
def draft(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    return str(tmp_path)


def config(
    release: tuple[int, ...] = NEWEST, installed: tuple[str, ...] = ("arctic_inference",), **environ: str
) -> dict[str, Any] | None:
    settings = ModelSettings.from_env({"ENABLE_SPECULATIVE_DECODING": "1", **environ})
    return speculative_config(settings.speculation, release, lambda package: package in installed)


def test_off_is_the_default() -> None:
    assert speculative_config(ModelSettings.from_env({"SPEC_METHOD": "draft_model"}).speculation, (0, 10, 0)) is None


def test_ngrams_are_looked_up_between_two_lengths() -> None:
    found = config(SPEC_NGRAM_LOOKUP_MAX="5", SPEC_NGRAM_LOOKUP_MIN="2", SPEC_NUM_SPECULATIVE_TOKENS="4")
    lengths = {"prompt_lookup_max": 5, "prompt_lookup_min": 2}
    assert found == {"method": "ngram", "num_speculative_tokens": 4, **lengths}


@pytest.mark.parametrize("method", ["draft_model", "eagle3"])
def test_a_draft_is_a_folder_with_an_optional_length(method: str, draft: str) -> None:
    plain = {"method": method, "num_speculative_tokens": 6, "model": draft}
    assert config(SPEC_METHOD=method, SPEC_DRAFT_MODEL_DIR=draft) == plain
    found = config(SPEC_METHOD=method, SPEC_DRAFT_MODEL_DIR=draft, SPEC_DRAFT_MAX_MODEL_LEN="512")
    assert found == {**plain, "max_model_len": 512}


def test_suffix_is_passed_through() -> None:
    assert config(SPEC_METHOD="suffix") == {"method": "suffix", "num_speculative_tokens": 6}


PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "old for draft_model": (
        {"release": (0, 14, 1), "SPEC_METHOD": "draft_model"},
        "SPEC_METHOD=draft_model: vLLM 0.14.1 does not do it, 0.15 and newer do",
    ),
    "old for suffix": (
        {"release": (0, 11, 0), "SPEC_METHOD": "suffix"},
        "SPEC_METHOD=suffix: vLLM 0.11.0 does not do it, 0.11.1 and newer do",
    ),
    "suffix without its package": (
        {"installed": (), "SPEC_METHOD": "suffix"},
        "SPEC_METHOD=suffix: it needs the package arctic-inference, which is not installed",
    ),
    "no draft": (
        {"SPEC_METHOD": "eagle3"},
        "SPEC_METHOD=eagle3: it needs a draft model, SPEC_DRAFT_MODEL_ID or SPEC_DRAFT_MODEL_DIR",
    ),
    "no model in the draft's folder": (
        {"SPEC_METHOD": "draft_model", "SPEC_DRAFT_MODEL_DIR": "/nowhere"},
        "SPEC_DRAFT_MODEL_DIR=/nowhere: no model's folder, it has no config.json",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_cannot_be_had_stops_the_start_by_its_name(name: str) -> None:
    given, message = PROBLEMS[name]
    with pytest.raises(StartupError) as caught:
        config(**given)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_optional_is_switched_off_with_a_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    given, message = PROBLEMS[name]
    with caplog.at_level(logging.WARNING, logger="llm.model"):
        assert config(**given, SPEC_DRAFT_OPTIONAL="1") is None
    assert [record.getMessage() for record in caplog.records] == [f"speculative decoding is off: {message}"]


@pytest.mark.parametrize("release", [(0, 15, 0), (0, 33, 0), ()])
def test_later_and_unknown_versions_are_trusted(release: tuple[int, ...], draft: str) -> None:
    assert config(release, SPEC_METHOD="draft_model", SPEC_DRAFT_MODEL_DIR=draft)
