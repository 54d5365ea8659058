from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from webui.texts import TEXTS, preferred, say

SOURCES = sorted((Path(__file__).resolve().parents[3] / "webui").rglob("*.py"))
CODE = "".join(source.read_text(encoding="utf-8") for source in SOURCES if source.name != "texts.py")


def values_of(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("key", TEXTS)
def test_both_languages_say_it_with_the_same_values(key: str) -> None:
    text = TEXTS[key]
    assert text.en.strip()
    assert text.zh.strip()
    assert values_of(text.en) == values_of(text.zh)
    assert not re.search(r"[\u4e00-\u9fff]", text.en)
    assert re.search(r"[\u4e00-\u9fff]", text.zh) or text.en == text.zh


def test_every_text_that_the_page_asks_for_is_there_and_no_other() -> None:
    named = set(re.findall(r'"([a-z]+(?:\.[a-z0-9_]+)+)"', CODE))
    made = {f"{group}.{name}" for group in ("batch", "status", "status.state") for name in re.findall(r'"(\w+)"', CODE)}
    states = {key for key in TEXTS if key.startswith("status.state.")}
    assert set(TEXTS) <= named | made | states
    assert {key for key in named if key.split(".")[0] in {one.split(".")[0] for one in TEXTS}} <= set(TEXTS)


def test_values_are_filled_in() -> None:
    assert say("en", "error.busy", seconds=3).endswith("in 3 seconds.")
    assert "3 秒" in say("zh", "error.busy", seconds=3)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr-FR,zh-TW;q=0.5", "zh"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_the_first_language_that_the_page_has_is_taken(header: str, language: str) -> None:
    assert preferred(header) == language
