from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import pytest

from tools.errors import UsageError
from tools.questions import jsonl_file
from webui.errors import BadUpload
from webui.questions import Answer, Question, read_questions, write_answers
from webui.scores import average, rouge_l, scored


def file_of(folder: Path, text: str | bytes) -> Path:
    file = folder / "questions.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def turns(*texts: str) -> list[dict[str, str]]:
    return [dict(zip(("role", "content"), text.split(" "), strict=True)) for text in texts]


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ({"prompt": "q", "reference": "r"}, Question("q", "r")),
        ({"prompt": "q"}, Question("q")),
        ({"question": "q", "answer": "r"}, Question("q", "r")),
        ({"instruction": "q", "output": "r"}, Question("q", "r")),
        ({"instruction": "q", "input": "about this", "output": "r"}, Question("q\nabout this", "r")),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}, Question("q", "r")),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}, Question("q")),
        ({"messages": turns("user q1", "assistant r1", "user q2")}, Question("q1", "r1")),
        ({"messages": turns("user q1", "assistant r1", "user q2", "assistant r2")}, Question("q2", "r2")),
        ({"messages": turns("assistant r1", "user q1", "user q2")}, Question("q2")),
        ({"prompt": "q", "output": "r", "answer": "s"}, Question("q", "r")),
        ({"instruction": "q", "question": "other", "reference": "r"}, Question("q", "r")),
    ],
)
def test_the_common_shapes_are_read(tmp_path: Path, line: dict[str, object], question: Question) -> None:
    assert read_questions(file_of(tmp_path, "\ufeff" + json.dumps(line) + "\n\n")) == [question]


def lines_of_every_shape() -> Iterator[dict[str, object]]:
    names = (*jsonl_file.PROMPTS, "input", *jsonl_file.REFERENCES)
    for count in range(len(names) + 1):
        for chosen in combinations(names, count):
            yield {name: f"the {name}" for name in chosen}
    for count in range(5):
        for roles in product(("system", "user", "assistant"), repeat=count):
            yield {"messages": turns(*(f"{role} text-{number}" for number, role in enumerate(roles)))}


def test_lines_that_the_tools_take_are_the_same_questions_here(tmp_path: Path) -> None:
    taken = 0
    for line in lines_of_every_shape():
        file = file_of(tmp_path, json.dumps(line))
        try:
            (expected,) = jsonl_file.read_jsonl(file)
        except UsageError:
            continue
        assert read_questions(file) == [Question(expected.prompt, expected.reference)]
        taken += 1
    assert taken


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    question = Question("one\u2028two\u2029three\x85four", "r")
    lines = [json.dumps({"prompt": question.text, "reference": "r"}, ensure_ascii=False), '{"prompt": "q"}', ""]
    for end in ("\n", "\r\n"):
        assert read_questions(file_of(tmp_path, end.join(lines))) == [question, Question("q")]


def test_what_was_written_can_be_asked_again(tmp_path: Path) -> None:
    write_answers([Answer(Question("one\u2028two"), "three\x85four")], tmp_path / "out.jsonl")
    assert read_questions(tmp_path / "out.jsonl") == [Question("one\u2028two", "three\x85four")]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        "{}",
        '{"prompt": " "}',
        '{"prompt": 3}',
        '{"messages": []}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_line_without_a_question_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadUpload, match="Line 2 is not a JSON object with a question"):
        read_questions(file_of(tmp_path, '{"prompt": "q"}\n' + line))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadUpload, match="not a text file in UTF-8"):
        read_questions(file_of(tmp_path, b"\xff\xfe\x00"))
    with pytest.raises(BadUpload, match="has no questions"):
        read_questions(file_of(tmp_path, "\n"))


def test_results_are_written_in_order(tmp_path: Path) -> None:
    answers = [Answer(Question("一", "二"), "三", score=0.5), Answer(Question("q"), "", problem="too long")]
    write_answers(answers, tmp_path / "out.jsonl")
    first, second = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == '{"prompt": "一", "response": "三", "reference": "二", "rouge_l_f1": 0.5}'
    assert json.loads(second) == {"prompt": "q", "response": "", "error": "too long"}


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("线程块是一组线程", "线程块是一组线程", 1.0),
        ("one two three", "one two three", 1.0),
        ("one\n\ntwo", "one two", 1.0),  # a blank line is no word
        ("one two", "one three", 0.5),  # one word of two in common, in both directions
        ("one two three four", "one two", 2 / 3),  # precision 1/2, recall 1
        ("猫", "狗", 0.0),
        ("", "狗", 0.0),
        (" \n", "狗", 0.0),
    ],
)
def test_scores_are_those_worked_out_by_hand(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(score, abs=1e-6)


def test_only_what_has_a_reference_counts() -> None:
    answers = scored(
        [Answer(Question("a", "one"), "one"), Answer(Question("b", "one"), ""), Answer(Question("c"), "x")]
    )
    assert [answer.score is None for answer in answers] == [False, False, True]
    assert average(answers) == pytest.approx(0.5, abs=1e-6)
    assert average([]) is None
