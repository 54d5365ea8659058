"""``sampling_parameters``: what is allowed, and that a refusal names the field, its value and what would do."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_model.errors import InvalidArgument
from llm_model.parameters import DEFAULT, SamplingParameters, StructuredOutputs, from_mapping, parse
from tests.unit.model.fuzz import quick

INT32 = 2**31 - 1
FIELDS = SamplingParameters.__struct_fields__


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Values at the two ends of a field's range, and values just outside."""

    field: str
    inside: tuple[Any, ...]
    outside: tuple[Any, ...]


BOUNDS = [
    Bounds("n", (1, 128), (0, -1, 129, 2.5)),
    Bounds("max_tokens", (1, INT32), (0, -1, INT32 + 1, 1.5)),
    Bounds("min_tokens", (0, INT32), (-1, INT32 + 1)),
    Bounds("temperature", (0, 0.0, 2), (-0.01, 2.01, "nan", "inf")),
    Bounds("top_p", (0.001, 1), (0, 1.01, -1, "nan")),
    Bounds("top_k", (-1, 0, INT32), (-2, INT32 + 1, 0.5)),
    Bounds("min_p", (0, 1), (-0.01, 1.01, "nan")),
    Bounds("presence_penalty", (-2, 2), (-2.01, 2.01, "nan", "-inf")),
    Bounds("frequency_penalty", (-2, 2), (-2.01, 2.01, "nan")),
    Bounds("repetition_penalty", (0.01, 2), (0, -1, 2.01, "nan")),
    Bounds("seed", (-(2**63), 2**63 - 1), (-(2**63) - 1, 2**63, 0.5, 10**40)),
    Bounds("stop", ("x", ["x", "yz"], []), ("", [""], [1], 5, {"a": 1}, [["x"]])),
    Bounds("stop_token_ids", ([], [0, INT32]), ([-1], [INT32 + 1], ["x"], 7, [0.5])),
    Bounds("ignore_eos", (True, False), (2, "maybe", [], 0.5)),
    Bounds("include_stop_str_in_output", (True, False), ("", 3)),
    Bounds("skip_special_tokens", (True, False), ("no!", -1)),
    Bounds("spaces_between_special_tokens", (True, False), ([True],)),
    Bounds("logprobs", (0, 20), (-1, 21, True)),
    Bounds("logit_bias", ([], [[0, -100], [INT32, 100]]), ([[0, 101]], [[-1, 0]], [[0]], {"x": 1}, {"1": "nan"}, 1)),
    Bounds("allowed_token_ids", ([0, INT32],), ([], [-1], ["x"], 7)),
    Bounds("bad_words", ([], ["a", "b"]), ([""], "a", [1])),
    Bounds(
        "structured_outputs", (), (1, "json", [], {"regex": ""}, {"choice": []}, {"choice": ["a", 1]}, {"regex": 1})
    ),
    Bounds("lora_name", ("x",), ("", 1, ["x"])),
]


def as_tuples(value: Any) -> Any:
    """Lists become tuples, so that parameters can be hashed."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def test_every_field_is_examined() -> None:
    assert [bounds.field for bounds in BOUNDS] == list(FIELDS)


@pytest.mark.parametrize(
    "field, value", [(bounds.field, value) for bounds in BOUNDS for value in bounds.inside], ids=repr
)
def test_values_up_to_the_bounds_are_taken(field: str, value: Any) -> None:
    assert getattr(parse(json.dumps({field: value})), field) == as_tuples(value)


@pytest.mark.parametrize(
    "field, value", [(bounds.field, value) for bounds in BOUNDS for value in bounds.outside], ids=repr
)
def test_values_beyond_the_bounds_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(json.dumps({field: value}))
    shown = json.dumps(value, separators=(",", ":"))
    assert caught.value.message.startswith(f"sampling_parameters: '{field}' has value {shown}. Expected ")


def test_what_is_left_out_keeps_vllms_default() -> None:
    assert parse(b"{}") == DEFAULT == SamplingParameters()
    assert (DEFAULT.max_tokens, DEFAULT.temperature, DEFAULT.top_k, DEFAULT.n) == (16, 1.0, 0, 1)
    assert parse(b'{"max_tokens": 5}') == SamplingParameters(max_tokens=5)


@pytest.mark.parametrize("blank", [b"", b" ", b"\n\t"])
def test_a_blank_item_means_the_defaults(blank: bytes) -> None:
    assert parse(blank) == DEFAULT


@pytest.mark.parametrize("field", FIELDS)
def test_null_means_left_out(field: str) -> None:
    assert parse(json.dumps({field: None})) == DEFAULT


@pytest.mark.parametrize(
    "field, text, value",
    [
        ("temperature", "0.1", 0.1),
        ("max_tokens", "100", 100),
        ("top_k", "-1", -1),
        ("seed", "7", 7),
        ("ignore_eos", "true", True),
        ("skip_special_tokens", "False", False),
        ("logprobs", "2", 2),
    ],
)
def test_numbers_and_booleans_may_be_strings(field: str, text: str, value: Any) -> None:
    taken = getattr(parse(json.dumps({field: text})), field)
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize(
    "name", ["extra_args", "output_kind", "detokenize", "skip_clone", "skip_reading_prefix_cache", "best_of", "", "N"]
)
def test_unknown_and_internal_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(json.dumps({"n": 1, name: None}))
    assert caught.value.message.startswith(f"sampling_parameters: unknown or internal parameter '{name}'; allowed are ")
    assert all(field in caught.value.message for field in FIELDS)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": 1e999}',
        b"{'n': 1}",
        b'{"n": 1} x',
        b'{"stop": "\\ud800"}',
        b'{"stop": "\xff"}',
        b"[" * 100_000,
        b'{"stop":' * 100_000,
        b'{"n": 1' + b"0" * 10_000 + b"}",
        '{"stop": "\ud800"}',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_json_is_refused(raw: bytes | str) -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: sampling_parameters: not valid JSON"):
        parse(raw)


@pytest.mark.parametrize("raw", ["null", "1", '"x"', "[]", '[{"n": 1}]', "true"])
def test_what_is_no_object_is_refused(raw: str) -> None:
    with pytest.raises(InvalidArgument, match="must be a JSON object, got "):
        parse(raw)


@pytest.mark.parametrize("before, opening, closing, after", [(b'{"stop":', b"[", b"]", b"}"),
    (b'{"stop":', b'{"a":', b"}", b"}"), (b'{"structured_outputs":{"json":{"a":', b'{"a":', b"}", b"}}}"),
    (b'{"x":', b"[", b"]", b"}")])  # fmt: skip
def test_nesting_of_any_depth_is_refused_or_taken(before: bytes, opening: bytes, closing: bytes, after: bytes) -> None:
    refused = 0
    for depth in range(900, 1010):  # about where the decoder's own limit lies
        try:
            parse(before + opening * depth + b"1" * (opening != b"[") + closing * depth + after)
        except InvalidArgument:  # noqa: PERF203
            refused += 1
    assert refused > 0


def test_a_bias_by_token_becomes_pairs() -> None:
    assert parse(b'{"logit_bias": {"5": 1.5, "7": -100}}').logit_bias == ((5, 1.5), (7, -100.0))


@pytest.mark.parametrize(
    "asked, kept",
    [
        ({"json": {"type": "object"}}, StructuredOutputs(json='{"type":"object"}')),
        ({"json": '{"type": "object"}'}, StructuredOutputs(json='{"type": "object"}')),
        ({"regex": "a+"}, StructuredOutputs(regex="a+")),
        ({"choice": ["yes", "no"]}, StructuredOutputs(choice=("yes", "no"))),
        ({"grammar": "root ::= 'a'"}, StructuredOutputs(grammar="root ::= 'a'")),
        ({"json_object": True, "regex": None}, StructuredOutputs(json_object=True)),
    ],
)
def test_structures_are_kept_in_a_form_that_can_be_hashed(asked: dict[str, Any], kept: StructuredOutputs) -> None:
    params = parse(json.dumps({"structured_outputs": asked}))
    assert params.structured_outputs == kept
    assert hash(params) == hash(parse(json.dumps({"structured_outputs": asked})))


@pytest.mark.parametrize(
    "asked, told",
    [
        ({}, r"'structured_outputs' has value {}. Exactly one is needed of json, regex, "),
        (
            {"regex": "a", "choice": ["b"]},
            r"'structured_outputs' has value {.*}. Exactly one is needed of json, regex, ",
        ),
        ({"x": 1}, r"'structured_outputs' has value .*unknown field `x`"),
        ({"json": "{"}, r"'structured_outputs' has value {.*}. 'json': not valid JSON"),
        ({"json": "[]"}, r"'structured_outputs' has value {.*}. 'json' must be a JSON schema"),
    ],
)
def test_a_structure_is_exactly_one(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        parse(json.dumps({"structured_outputs": asked}))


def test_a_refusal_is_of_bounded_length() -> None:
    for raw in ({"stop": [1] * 10_000}, {"x" * 10_000: 1}, {"temperature": "9" * 10_000}):
        with pytest.raises(InvalidArgument) as caught:
            parse(json.dumps(raw))
        assert len(caught.value.message) < 700


def test_a_refusal_names_the_input_it_came_from() -> None:
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: request parameters: 'n' has value 0"):
        from_mapping({"n": 0}, "request parameters")


def test_stop_strings_have_one_form() -> None:
    assert parse(b"{}").stop_strings == ()
    assert parse(b'{"stop": "a"}').stop_strings == ("a",)
    assert parse(b'{"stop": ["a", "b"]}').stop_strings == ("a", "b")


def test_equal_items_share_one_object() -> None:
    assert parse(b'{"n": 2}') is parse('{"n": 2}')


LONG = ["x" * 9] * 1000
NUMBERS = list(range(3000))


@pytest.mark.parametrize(
    "fields, is_small",
    [
        ({}, True),
        ({"temperature": 0.1, "stop": ["<|im_end|>"] * 8, "logit_bias": [[5, 1.5]], "allowed_token_ids": [1, 2]}, True),
        ({"structured_outputs": {"json": {"type": "object"}}}, True),
        ({"structured_outputs": {"json": {"type": "object", "title": "x" * 5000}}}, False),
        ({"structured_outputs": {"regex": "x" * 5000}}, False),
        ({"structured_outputs": {"choice": LONG}}, False),
        ({"stop": "x" * 5000}, False),
        ({"stop": LONG}, False),
        ({"bad_words": LONG}, False),
        ({"stop_token_ids": NUMBERS}, False),
        ({"allowed_token_ids": NUMBERS}, False),
        ({"logit_bias": [[number, 1] for number in NUMBERS]}, False),
        ({"lora_name": "线" * 2000}, False),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value),
)
def test_parameters_that_hold_something_long_are_not_to_be_kept(fields: dict[str, Any], is_small: bool) -> None:
    params = parse(json.dumps(fields))
    assert params.is_small is is_small
    assert (parse(json.dumps(fields)) is params) is is_small


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from([*FIELDS, "extra_args"]) | st.text(max_size=5), JSON_VALUES, max_size=4)


@quick
@given(st.binary(max_size=40) | st.text(st.characters(), max_size=40) | (JSON_VALUES | OBJECTS).map(json.dumps))
def test_nothing_but_invalid_argument_is_raised(raw: bytes | str) -> None:
    try:
        params = parse(raw)
    except InvalidArgument as exc:
        assert "\n" not in exc.message  # noqa: PT017 - either outcome is fine
    else:
        assert hash(params) == hash(parse(raw))


@quick
@given(st.fixed_dictionaries({}, optional={name: JSON_VALUES for name in FIELDS}))
def test_a_field_that_is_refused_is_named(fields: dict[str, Any]) -> None:
    try:
        from_mapping(fields, "here")
    except InvalidArgument as exc:
        assert any(exc.message.startswith(f"here: '{name}' has value ") for name in fields)  # noqa: PT017


@pytest.mark.parametrize(
    "field, value",
    [
        ("structured_outputs", {"choice": ["a", "b"]}),
        ("structured_outputs", {"json": {"type": "object"}}),
        ("logit_bias", {"5": 1.5}),
        ("stop_token_ids", [1, 2]),
        ("allowed_token_ids", [7]),
        ("bad_words", ["a"]),
    ],
)
def test_objects_and_lists_may_be_texts(field: str, value: Any) -> None:
    assert parse(json.dumps({field: json.dumps(value)})) == parse(json.dumps({field: value}))


@pytest.mark.parametrize("text", ["[1", "{", "[]x"])
def test_a_text_that_is_no_json_is_refused_as_it_is(text: str) -> None:
    with pytest.raises(InvalidArgument, match="'stop_token_ids' has value"):
        parse(json.dumps({"stop_token_ids": text}))


def test_a_stop_string_stays_a_text() -> None:
    assert parse(b'{"stop": "[1]"}').stop_strings == ("[1]",)
