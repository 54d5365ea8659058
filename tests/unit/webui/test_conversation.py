from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import httpx
import pytest

from webui.client import GatewayClient
from webui.conversation import Turn, Wish, answered_turns, ask, messages_for, text_of
from webui.passages import Passage
from webui.settings import WebSettings
from webui.status import Rates, Reading, counters, rates
from webui.stream import Stops, merged
from webui.tables import html_table, sparkline


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def test_what_the_model_gets() -> None:
    earlier = [said("user", "q1"), said("assistant", [{"type": "text", "text": "a1"}]), said("user", "no answer")]
    wish = Wish(system_prompt="Be brief.")
    assert messages_for("en", "q2", earlier, wish) == [
        said("system", "Be brief."),
        said("user", "q1"),
        said("assistant", "a1"),
        said("user", "q2"),
    ]
    assert messages_for("en", "q2", earlier, Wish(with_history=False)) == [said("user", "q2")]
    (asked,) = messages_for("zh", "q2", [], Wish(), [Passage(1, "资料一")])
    assert asked["content"].index("资料一") < asked["content"].index("q2")


def test_questions_without_an_answer_are_left_out() -> None:
    messages = [said("user", "lost"), said("user", "q"), said("assistant", "a"), said("user", "lost too")]
    assert answered_turns(messages) == [said("user", "q"), said("assistant", "a")]


@pytest.mark.parametrize("content", ["ab", ["a", "b"], [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]])
def test_all_forms_of_a_messages_text(content: object) -> None:
    assert text_of(content) == "ab"


async def turns_of(reply: httpx.Response) -> list[Turn]:
    def answer(request: httpx.Request) -> httpx.Response:
        return reply if request.url.path.startswith("/v1") else httpx.Response(200, json={"status": "ready"})

    gateway = GatewayClient(WebSettings(), httpx.MockTransport(answer))
    return [turn async for turn in ask(gateway, "en", "q", [], Wish(), asyncio.Event())]


async def test_the_last_turn_tells_how_it_ended() -> None:
    event = {"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    turns = await turns_of(httpx.Response(200, text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"))
    assert turns[0].notice == "The model is answering …"
    assert turns[-1].answer == "hello"
    assert turns[-1].notice.startswith("1 tokens in")
    assert [message["role"] for message in turns[-1].messages()] == ["user", "assistant"]


async def test_an_error_ends_a_turn_with_a_sentence() -> None:
    turns = await turns_of(httpx.Response(504, json={"error": {"type": "deadline_exceeded", "message": "m"}}))
    assert turns[-1].notice == "The service did not finish the answer within its time limit."
    assert turns[-1].messages() == [said("user", "q")]


async def test_a_stop_closes_the_source_at_once() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
            await asyncio.Event().wait()
        finally:
            closed.set()

    stops = Stops()
    stop = stops.start("me")
    got: list[int] = []
    async for batch in merged(source(), stop):
        got += batch
        stops.stop("me")
    assert got == [1, 2]
    assert closed.is_set()


async def test_a_faults_own_error_comes_after_the_pieces_before_it() -> None:
    async def source() -> AsyncGenerator[int, None]:
        yield 1
        raise OSError("broken")

    pieces = merged(source(), asyncio.Event())
    assert await anext(pieces) == [1]
    with pytest.raises(OSError, match="broken"):
        await anext(pieces)


def test_a_new_answer_of_the_same_session_stops_the_first_one_only() -> None:
    stops = Stops()
    first, other = stops.start("me"), stops.start("you")
    second = stops.start("me")
    assert (first.is_set(), second.is_set(), other.is_set()) == (True, False, False)
    stops.finish("me", first)  # too late to matter
    stops.stop("me")
    assert second.is_set()


def reading(at: float, prompts: float, tokens: float) -> Reading:
    return Reading(at, "ready", {}, prompts, tokens)


def test_rates_are_what_came_a_second_and_a_restart_is_no_rate() -> None:
    assert rates(reading(1, 10, 100), reading(3, 12, 400)) == Rates(1.0, 150.0)
    assert rates(None, reading(3, 12, 400)) == Rates()
    assert rates(reading(1, 10, 100), reading(3, 1, 5)) == Rates()


def test_counters_are_summed_over_their_labels() -> None:
    text = '# HELP x y\nx_total{a="1"} 2.0\nx_total{a="2"} 3\ny_total 1e3\nbroken\n'
    assert counters(text) == {"x_total": 5.0, "y_total": 1000.0}


def test_tables_show_texts_as_they_are() -> None:
    assert "<td>&lt;b&gt;</td>" in html_table(["h"], [["<b>"]], "note")
    assert sparkline([1.0]) == ""
    assert "0.0,58.0 600.0,2.0" in sparkline([0.0, 5.0])
