"""Every shape of question set gives the same questions; what is wrong is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docx
import pytest

from tools.errors import UsageError
from tools.questions import Question, read_questions
from tools.questions.docx_file import pairs

PAIR = Question("什么是线程块？", "线程的集合。")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "什么是线程块？", "reference": "线程的集合。"},
        {"prompt": "什么是线程块？", "response": "线程的集合。"},
        {"question": "什么是线程块？", "answer": "线程的集合。"},
        {"instruction": "什么是线程块？", "output": "线程的集合。"},
        {"instruction": "什么是线程块？", "input": "", "output": "线程的集合。"},
        {"messages": [{"role": "user", "content": "什么是线程块？"}, {"role": "assistant", "content": "线程的集合。"}]},
        {
            "messages": [
                {"role": "system", "content": "简答"},
                {"role": "user", "content": "你好"},
                {"role": "assistant", "content": "你好！"},
                {"role": "user", "content": "什么是线程块？"},
                {"role": "assistant", "content": "线程的集合。"},
            ]
        },
    ],
)
def test_the_common_shapes(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read_questions(jsonl(tmp_path, row)) == [PAIR]


def test_the_input_follows_the_instruction(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"instruction": "翻译", "input": "thread", "output": "线程"})
    assert read_questions(file) == [Question("翻译\nthread", "线程")]


def test_lines_end_at_line_feeds_only_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('\ufeff{"prompt": "a\u2028b", "reference": "c"}\r\n\n', encoding="utf-8")
    assert read_questions(file) == [Question("a\u2028b", "c")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: not JSON"),
        pytest.param("[" * 100_000, "line 2: not JSON", id="deep"),
        ("[]", "line 2: not an object"),
        ('{"prompt": "a"}', "line 2: none of the fields reference"),
        ('{"prompt": " ", "reference": "b"}', "line 2: prompt is ' '"),
        ('{"prompt": ["a"], "reference": "b"}', "line 2: prompt is"),
        ('{"messages": "a"}', "line 2: messages is not a list"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no user message with an assistant message after it"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text(f'{{"prompt": "a", "reference": "b"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=reason):
        read_questions(file)


@pytest.mark.parametrize(("name", "reason"), [("a.txt", ".jsonl or .docx"), ("a.jsonl", "no such file")])
def test_a_file_that_is_no_question_set(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read_questions(tmp_path / name)


def test_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UsageError, match="no question"):
        read_questions(tmp_path / "a.jsonl")


def test_a_word_file_with_answers_over_several_paragraphs(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("第2章 数据并行计算", level=1)
    for text in (
        "问题：什么是线程块？",
        " 答案：线程的集合。",
        "",
        "第2章讲过它，不是标题。",
        "问题: 第二问？",
        "答案:第二答。",
    ):
        document.add_paragraph(text)
    document.add_heading("小结", level=2)
    document.add_paragraph("不是答案")
    file = tmp_path / "set.docx"
    document.save(str(file))
    assert read_questions(file) == [
        Question("什么是线程块？", "线程的集合。\n第2章讲过它，不是标题。"),
        Question("第二问？", "第二答。"),
    ]


def test_a_chapter_without_a_headings_style_ends_an_answer() -> None:
    texts = ["问题：甲？", "答案：一。", "第3章 可扩展并行执行", "问题：乙？", "答案：二。"]
    assert pairs(texts, "x") == [Question("甲？", "一。"), Question("乙？", "二。")]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [(["问题：甲？", "问题：乙？", "答案：二。"], "'甲？' has no answer"), (["答案：一。"], "has no question")],
)
def test_half_a_pair_is_named(texts: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        pairs(texts, "x")


def test_a_file_that_is_no_word_file(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK no")
    with pytest.raises(UsageError, match="not a Word file"):
        read_questions(tmp_path / "a.docx")


def test_the_courses_files_hold_the_same_questions(shared_dir: Path | None) -> None:
    if shared_dir is None:
        pytest.skip("no shared test material: set SHARED_DIR or put `shared` beside the project")
    word = read_questions(shared_dir / "data" / "basic.docx")
    lines = read_questions(shared_dir / "data" / "basic_qa.jsonl")
    assert len(word) == 100
    assert [one.prompt for one in word] == [one.prompt for one in lines]
    # Where they differ, the JSONL took the heading of the next chapter for a part of the answer.
    assert all(two.reference.split("\n第")[0] == one.reference for one, two in zip(word, lines, strict=True))
    assert len(read_questions(shared_dir / "data" / "course_qa.jsonl", limit=50)) == 50


def jsonl(folder: Path, row: dict[str, Any]) -> Path:
    file = folder / "set.jsonl"
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return file
