"""What the model is sent for a question: messages, and parameters that the model itself accepts."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadValue
from gateway.policy.messages import MessageEncoder, SystemPrompt
from gateway.policy.sampling import SamplingEncoder, SamplingOptions
from gateway.settings import SamplingSettings
from llm_model import parameters as model_parameters


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_messages_are_json_of_system_prompt_and_question(system: str, question: str) -> None:
    expected = [{"role": "system", "content": system}] if system.strip() else []
    expected.append({"role": "user", "content": question})
    assert json.loads(MessageEncoder(system).encode(question)) == expected


def test_a_new_system_prompt_holds_for_what_starts_later() -> None:
    store = SystemPrompt("old")
    started = store.encoder()
    store.replace("new")
    assert json.loads(started.encode("q"))[0]["content"] == "old"
    assert json.loads(store.encoder().encode("q"))[0]["content"] == "new"
    assert json.loads(store.encoder("own").encode("q"))[0]["content"] == "own"
    assert json.loads(store.encoder("").encode("q")) == [{"role": "user", "content": "q"}]
    assert store.text == "new"


def _encode(options: SamplingOptions, settings: SamplingSettings | None = None) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(SamplingEncoder(settings or SamplingSettings(), options).encode(64))
    return fields


def test_defaults_are_sent_in_full() -> None:
    assert _encode(SamplingOptions()) == {
        "max_tokens": 64,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.05,
        "frequency_penalty": 0.1,
        "stop": ["<|im_end|>", "<|endoftext|>"],
    }


def test_options_go_before_defaults_even_when_they_are_zero() -> None:
    settings = SamplingSettings(temperature=0.7, top_k=5, frequency_penalty=0.5)
    sent = _encode(SamplingOptions(temperature=0.0, top_k=0, frequency_penalty=0.0, top_p=0.5), settings)
    assert (sent["temperature"], sent["top_k"], sent["frequency_penalty"], sent["top_p"]) == (0.0, 0, 0.0, 0.5)


def test_ignoring_the_end_ignores_the_end_markers_too() -> None:
    sent = _encode(SamplingOptions(ignore_eos=True))
    assert sent["ignore_eos"] is True
    assert "stop" not in sent


def test_one_budget_is_serialized_once() -> None:
    encoder = SamplingEncoder(SamplingSettings(), SamplingOptions())
    assert encoder.encode(64) is encoder.encode(64)
    assert encoder.encode(64) != encoder.encode(96)


LIMITS = [
    ("max_new_tokens", "max_tokens", 1, 2**31 - 1, 0, 2**31),
    ("temperature", "temperature", 0.0, 2.0, -0.1, 2.5),
    ("top_p", "top_p", 0.01, 1.0, 0.0, 1.5),
    ("top_k", "top_k", -1, 2**31 - 1, -2, 2**31),
    ("repetition_penalty", "repetition_penalty", 0.01, 2.0, 0.0, 2.5),
    ("frequency_penalty", "frequency_penalty", -2.0, 2.0, -2.5, 2.5),
]


@pytest.mark.parametrize("field,model_field,low,high,too_low,too_high", LIMITS)
def test_limits_are_the_models_own(
    field: str, model_field: str, low: float, high: float, too_low: float, too_high: float
) -> None:
    for value in (low, high):
        SamplingOptions(**{field: value}).check()  # type: ignore[arg-type]
        model_parameters.parse(json.dumps({model_field: value}))
    for value in (too_low, too_high, math.nan):
        with pytest.raises(BadValue) as caught:
            SamplingOptions(**{field: value}).check()  # type: ignore[arg-type]
        assert caught.value.message.startswith(f"{field} has value {value}; allowed")


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_the_model_accepts_what_is_sent(ignore_eos: bool) -> None:
    raw = SamplingEncoder(SamplingSettings(), SamplingOptions(ignore_eos=ignore_eos)).encode(96)
    parsed = model_parameters.parse(raw)
    assert (parsed.max_tokens, parsed.temperature, parsed.ignore_eos) == (96, 0.0, ignore_eos)
