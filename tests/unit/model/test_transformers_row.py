"""What ends a sample, and what its caller is told."""

from __future__ import annotations

from typing import Any

import pytest

from llm_model.engines.base import GenerationRequest, Sample
from llm_model.engines.transformers_row import EndTokens, Row
from llm_model.engines.transformers_text import CompletionText
from llm_model.errors import ModelError
from llm_model.parameters import SamplingParameters

ENDS = EndTokens(primary=2, others=frozenset((3,)))


class NoOutlet:
    def put(self, sample: Sample) -> None:
        raise AssertionError("rows report when asked")

    def fail(self, error: ModelError) -> None:
        raise AssertionError("rows report when asked")


def make_row(is_streaming: bool = False, budget: int = 10, with_text: bool = True, **params: Any) -> Row:
    parameters = SamplingParameters(**params)
    request = GenerationRequest("r", [1], parameters, detokenize=with_text)
    text = CompletionText(lambda ids: "".join(map(chr, ids)), [], parameters) if with_text else None
    return Row(request, 0, budget, ENDS, NoOutlet(), text, is_streaming)


def ending(row: Row, *tokens: int) -> tuple[str | None, int | str | None, str | None]:
    """Feed tokens; return finish reason, stop reason and text."""
    for token in tokens:
        assert row.finish_reason is None
        row.accept(token)
    sample = row.report()
    return (sample.finish_reason, sample.stop_reason, sample.text) if sample else (None, None, None)


@pytest.mark.parametrize(
    ("params", "tokens", "expected"),
    [
        ({}, [65, 2], ("stop", None, "A")),
        ({}, [65, 3], ("stop", 3, "A")),  # a second end-of-sequence token is named, as in vLLM
        ({"ignore_eos": True}, [65, 2, 3], (None, None, None)),
        ({"ignore_eos": True, "stop_token_ids": (2,)}, [65, 2], ("stop", 2, "A")),
        ({"stop_token_ids": (2,)}, [65, 2], ("stop", None, "A")),  # it is the end of the sequence anyway
        ({"stop_token_ids": (66,)}, [65, 66], ("stop", 66, "A")),
        ({"stop_token_ids": (66,), "include_stop_str_in_output": True}, [65, 66], ("stop", 66, "AB")),
        ({"stop": ("BC",)}, [65, 66, 67], ("stop", "BC", "A")),
    ],
)
def test_end(params: dict[str, Any], tokens: list[int], expected: tuple[Any, Any, Any]) -> None:
    assert ending(make_row(**params), *tokens) == expected


def test_end_by_length() -> None:
    assert ending(make_row(budget=2), 65, 66) == ("length", None, "AB")


def test_stop_string_on_the_last_token_counts_as_stop() -> None:
    assert ending(make_row(budget=2, stop="B"), 65, 66) == ("stop", "B", "A")


def test_token_ids_end_with_the_stop_token() -> None:
    row = make_row()
    ending(row, 65, 2)
    assert row.token_ids == [65, 2]


def test_min_tokens_delays_every_end_token() -> None:
    assert make_row(stop_token_ids=(9,)).delayed == {2, 3, 9}
    assert make_row(ignore_eos=True).delayed == {2, 3}


def test_without_text_only_token_ids_are_reported() -> None:
    row = make_row(with_text=False)
    row.accept(2)
    assert row.report() == Sample(0, [2], None, "stop")


def test_unstreamed_row_reports_once() -> None:
    row = make_row()
    row.accept(65)
    assert row.report() is None


def test_streamed_row_reports_what_is_new() -> None:
    row = make_row(is_streaming=True, budget=3, logprobs=1)
    reports = []
    for token in (65, 66, 67):
        row.accept(token, {token: {"logprob": -0.5, "rank": 1, "decoded_token": chr(token)}})
        reports.append(row.report())
    assert [(r.token_ids, r.text, r.finish_reason, r.cumulative_logprob) for r in reports if r] == [
        ([65], "A", None, -0.5),
        ([66], "B", None, -1.0),
        ([67], "C", "length", -1.5),
    ]
    assert [list(entry) for r in reports if r and r.logprobs for entry in r.logprobs] == [[65], [66], [67]]
