"""The template cache: what comes out is the full render, always, and constant parts are rendered once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_model import chat_template
from llm_model.chat_template import ChatTemplate, Message, mentioned_strings
from tests.unit.model.fuzz import quick
from tests.unit.model.templates import (
    CONDITIONAL,
    DATED,
    LLAMA3,
    PLAIN,
    REWRITING,
    STRICT,
    THINKING,
    FullRender,
    TemplateRefusal,
)
from tests.unit.model.tiny_model import CHATML

ALL = PLAIN | REWRITING | CONDITIONAL
PIECES = [
    "<think>", "</think>", "<tool_response>", "</tool_response>", "/no_think", "<|im_end|>", "<|eot_id|>", "[INST]",
    "user", "system", "assistant", "{{ 1 }}", "{% raw %}", "你好", " ", "\n", "\t", "\u00a0", "\u3000", "'", '"', "\\",
    "/", "A", "é", "\x00", "\ue000", "\ue001", "\ufffd", "😀", chat_template._PLACEHOLDER,
]  # fmt: skip
CONTENTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=6).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
MESSAGES = st.fixed_dictionaries({"role": ROLES, "content": CONTENTS}, optional={"name": st.just("x")})
CONVERSATIONS = st.lists(MESSAGES, max_size=3)


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def outcome(render: FullRender | ChatTemplate, messages: Sequence[Message]) -> str:
    """The text, or the template's refusal."""
    try:
        return render.render(messages) if isinstance(render, ChatTemplate) else render(messages)
    except TemplateRefusal as exc:
        return f"refused: {exc}"


@pytest.mark.parametrize("name", ALL)
def test_the_result_is_the_full_render(name: str) -> None:
    full = FullRender(ALL[name])
    template = ChatTemplate(FullRender(ALL[name]), ALL[name])

    @quick
    @given(CONVERSATIONS, st.lists(CONTENTS, min_size=1, max_size=4))
    @example([], ["plain", " padded ", "<think>x</think>y", "a\nb", 'say "hi"', "/no_think", "/x", ""])
    @example([system("s")], ["one", "two", "<tool_response>t</tool_response>"])
    @example([user("a"), {"role": "assistant", "content": "<think>t</think>b"}], ["c", "d"])
    def check(before: list[Message], contents: list[str]) -> None:
        for content in contents:
            messages = [*before, user(content)]
            assert outcome(template, messages) == outcome(full, messages)

    check()


@pytest.mark.parametrize("name", ["chatml", "trimming", "llama3", "thinking", "strict"])
def test_the_constant_parts_are_rendered_once(name: str) -> None:
    render = FullRender(PLAIN[name])
    template = ChatTemplate(render, PLAIN[name])
    for number in range(50):
        template.render([user(f"question {number}: what is a warp?\nAnd 线程束?")])
    assert render.count == 1


def test_each_shape_has_constant_parts_of_its_own() -> None:
    render = FullRender(CHATML)
    template = ChatTemplate(render, CHATML)
    for prompt in ("be brief", "be long"):
        for number in range(10):
            text = template.render([system(prompt), user(f"q{number}")])
            assert text == (
                f"<|im_start|>system\n{prompt}<|im_end|>\n<|im_start|>user\nq{number}<|im_end|>\n<|im_start|>assistant\n"
            )
    assert render.count == 2


@pytest.mark.parametrize("name", REWRITING)
def test_a_template_that_rewrites_is_rendered_every_time(name: str) -> None:
    render = FullRender(REWRITING[name])
    template = ChatTemplate(render, REWRITING[name])
    texts = [template.render([user(f'Say {number} "x"\nplease')]) for number in range(5)]
    assert len(set(texts)) == 5
    assert render.count >= 5


def test_a_date_is_never_yesterdays() -> None:
    render = FullRender(DATED)
    template = ChatTemplate(render, DATED)
    assert template.render([user("q")]).startswith("Today: day 1\n")
    render.today = 2
    assert template.render([user("q")]).startswith("Today: day 2\n")


def test_a_refusal_reaches_the_caller_whatever_was_rendered_before() -> None:
    template = ChatTemplate(FullRender(STRICT), STRICT)
    assert template.render([user("q")]) == "<s>[INST] q [/INST]"
    for _ in range(2):
        with pytest.raises(TemplateRefusal, match="must alternate"):
            template.render([user("q"), user("r")])


def test_the_number_of_remembered_shapes_is_bounded() -> None:
    render = FullRender(CHATML)
    template = ChatTemplate(render, CHATML)
    limit = chat_template._MAX_SHAPES
    for number in range(limit + 10):
        template.render([system(f"s{number}"), user("q")])
        template.render([system("always used"), user("q")])
    assert len(template._shapes) == limit
    assert render.count == limit + 11  # the shape that is used all the time was never forgotten
    template.render([system("s0"), user("q")])
    assert render.count == limit + 12  # the oldest was


@pytest.mark.parametrize(
    "history, is_kept",
    [
        ([system("s" * 30_000)], True),
        ([system("s" * 33_000)], False),
        ([{"role": "r" * 33_000, "content": ""}], False),
        ([user("a" * 10_000), {"role": "assistant", "content": "b" * 10_000}, system("c" * 13_000)], False),
        ([user("")] * 400, True),
        ([user("")] * 600, False),
    ],
    ids=lambda value: f"{len(value)} messages" if isinstance(value, list) else "",
)
def test_a_long_history_is_rendered_in_full_and_not_remembered(history: list[Message], is_kept: bool) -> None:
    render = FullRender(CHATML)
    template = ChatTemplate(render, CHATML)
    for number in range(3):
        messages = [*history, user(f"q{number}")]
        assert template.render(messages) == FullRender(CHATML)(messages)
    assert render.count == (1 if is_kept else 3)
    assert len(template._shapes) == is_kept


def test_messages_with_more_than_role_and_content_are_rendered_in_full() -> None:
    render = FullRender(CHATML)
    template = ChatTemplate(render, CHATML)
    for _ in range(3):
        template.render([{**system("s"), "name": "x"}, user("q")])
        template.render([system("s"), {**user("q"), "name": "x"}])
    assert render.count == 6


def test_a_template_without_source_is_rendered_in_full() -> None:
    render = FullRender(CHATML)
    template = ChatTemplate(render, None)
    assert template.render([user("q")]) == template.render([user("q")])
    assert render.count == 2


@pytest.mark.parametrize(
    "source, expected",
    [
        ("{{ '<|im_start|>' + x['role'] }}", ()),
        ("{% if x == 'user' %}a{% endif %}", ("user",)),
        ("{{ x.split('</think>\n')[-1] }}", ("</think>",)),
        ("{% set tag = '<t>' %}{% if tag in x %}a{% endif %}", ("<t>",)),
        ("{% if '\n' in x %}a{% endif %}{{ x.strip('\n') }}{% if x == '' %}b{% endif %}", ("\n",)),
        ("{% generation %}{{ x }}{% endgeneration %}", ()),
        ("{% broken", None),
        ("{{ strftime_now('%Y') }}", None),
        (None, None),
    ],
)
def test_strings_that_can_change_a_templates_course(source: str | None, expected: tuple[str, ...] | None) -> None:
    assert mentioned_strings(source) == expected


def test_the_tags_of_known_templates_are_found() -> None:
    assert {"</think>", "<tool_response>", "</tool_response>", "/no_think"} <= set(mentioned_strings(THINKING) or ())
    assert "<|eot_id|>" not in (mentioned_strings(STRICT) or ())
    assert {"ipython", "tool", "tool_calls", "system"} <= set(mentioned_strings(LLAMA3) or ())
