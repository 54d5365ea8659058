"""The chat tab in a browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.fakes.web_gateway import ADMIN_TOKEN, DEFAULT_PROMPT, FakeGateway, Refusal, Script
from tests.webui.conftest import wait_for


def send(page: Page, question: str) -> None:
    page.locator("#question textarea").fill(question)
    page.locator("#send").click()


def answers(page: Page) -> Locator:
    return page.locator("#conversation [data-testid=bot]")


def notice(page: Page) -> Locator:
    return page.locator("#chat-notice")


def set_number(page: Page, slider: str, value: str) -> None:
    """Type into a slider's number field and leave it; wait until the field has taken it."""
    field = page.locator(f"{slider} input[type=number]")
    field.fill(value)
    field.press("Tab")
    expect(field).to_have_value(value)


def test_an_answer_is_shown_as_it_comes(page: Page, script: Script) -> None:
    script.held_after = 1
    send(page, "What is a grid?")
    expect(answers(page)).to_have_text("A grid")
    expect(notice(page)).to_have_text("The model is answering …")
    script.go_on.set()
    expect(answers(page)).to_have_text("A grid of thread blocks.")
    expect(notice(page)).to_contain_text("3 tokens in")
    expect(page.locator("#question textarea")).to_have_value("")


def test_enter_sends_too_and_the_service_gets_key_and_system_prompt(page: Page, script: Script) -> None:
    page.locator("#question textarea").fill("What is a grid?")
    page.locator("#question textarea").press("Enter")
    expect(notice(page)).to_contain_text("3 tokens in")
    assert script.chats[0]["messages"] == [
        {"role": "system", "content": DEFAULT_PROMPT},
        {"role": "user", "content": "What is a grid?"},
    ]
    assert script.authorizations == ["Bearer the-key"]


def test_parameters_go_with_the_question(page: Page, script: Script) -> None:
    set_number(page, "#max-tokens", "33")
    set_number(page, "#temperature", "0.7")
    set_number(page, "#top-p", "0.9")
    send(page, "What is a grid?")
    expect(notice(page)).to_contain_text("3 tokens in")
    sent = script.chats[0]
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"]) == (33, 0.7, 0.9)


def test_earlier_turns_are_sent_along_unless_switched_off(page: Page, script: Script) -> None:
    send(page, "first")
    expect(notice(page)).to_contain_text("3 tokens in")
    send(page, "second")
    expect(answers(page)).to_have_text(["A grid of thread blocks."] * 2)
    assert [message["content"] for message in script.chats[1]["messages"][1:]] == [
        "first",
        "A grid of thread blocks.",
        "second",
    ]
    page.get_by_label("Send earlier turns along").uncheck()
    send(page, "third")
    wait_for(lambda: len(script.chats) == 3, "the third question")
    assert [message["content"] for message in script.chats[2]["messages"][1:]] == ["third"]


def test_stop_keeps_what_has_come_and_leaves_the_service(page: Page, script: Script) -> None:
    script.held_after = 2
    send(page, "What is a grid?")
    expect(answers(page)).to_have_text("A grid of thread")
    page.locator("#stop").click()
    expect(notice(page)).to_have_text("Stopped. What had come is kept.")
    expect(answers(page)).to_have_text("A grid of thread")
    assert script.went_away.wait(60)


def test_a_new_conversation_is_empty(page: Page, script: Script) -> None:
    send(page, "What is a grid?")
    expect(notice(page)).to_contain_text("3 tokens in")
    page.locator("#clear").click()
    expect(answers(page)).to_have_count(0)
    expect(notice(page)).to_have_text("")


def test_an_answer_that_was_cut_says_so(page: Page, script: Script) -> None:
    script.finish_reason = "length"
    send(page, "What is a grid?")
    expect(notice(page)).to_contain_text("cut at the greatest length")


REFUSALS = [
    (Refusal(429, "queue_full", retry_after_s=9), "hands full; please try again in 9 seconds."),
    (
        Refusal(503, "not_ready", retry_after_s=4),
        "not ready yet (it is loading or recovering); please try again in 4",
    ),
    (
        Refusal(400, "invalid_value", "4000 tokens, 2048 fit"),
        "does not accept this request: 4000 tokens, 2048 fit.",
    ),
    (Refusal(401, "unauthorized"), "does not accept the key or token"),
    (Refusal(502, "model_failed", "the model failed"), "answered with error 502: the model failed."),
    (Refusal(504, "deadline_exceeded"), "within its time limit."),
]


def test_an_error_is_a_sentence(page: Page, script: Script) -> None:
    for refusal, sentence in REFUSALS:
        script.refusal = refusal
        send(page, "What is a grid?")
        expect(notice(page)).to_contain_text(sentence)
    expect(page.locator(".toast-body")).to_have_count(0)


def test_a_model_that_is_loading_is_told_at_once(page: Page, script: Script) -> None:
    script.state = "warming"
    send(page, "What is a grid?")
    expect(notice(page)).to_contain_text("The model is not ready yet")
    assert script.chats == []


def test_a_fault_midway_keeps_what_has_come(page: Page, script: Script) -> None:
    script.breaks = True
    send(page, "What is a grid?")
    expect(notice(page)).to_contain_text("the model fell over")
    expect(answers(page)).to_have_text("A grid of thread blocks.")


def test_a_question_without_a_text_is_not_sent(page: Page, script: Script) -> None:
    send(page, "  ")
    expect(notice(page)).to_have_text("Please type a question first.")
    assert script.chats == []


def test_fitting_passages_go_before_the_question_and_stand_beside_the_answer(
    page: Page, script: Script, tmp_path: Path
) -> None:
    material = tmp_path / "notes.md"
    material.write_text("Cats sleep all day.\n\nA grid is made of thread blocks.\n\nRain falls in spring.\n")
    page.get_by_text("Reference material", exact=True).click()
    page.locator("#material-file input[type=file]").set_input_files(material)
    expect(page.locator("#material-text textarea")).to_have_value(material.read_text())
    send(page, "What is a grid?")
    expect(page.locator("#passages textarea")).to_have_value("[2] A grid is made of thread blocks.")
    expect(notice(page)).to_contain_text("3 tokens in")
    asked = script.chats[0]["messages"][-1]["content"]
    assert asked.index("A grid is made of thread blocks.") < asked.index("What is a grid?")
    assert "Cats" not in asked


def test_the_system_prompt_of_the_service_is_replaced_with_the_admin_token(page: Page, script: Script) -> None:
    page.get_by_text("System prompt", exact=True).click()
    prompt, told = page.locator("#system-prompt textarea"), page.locator("#system-notice")
    expect(prompt).to_have_value(DEFAULT_PROMPT)
    prompt.fill("Be brief.")
    page.locator("#system-write").click()
    expect(told).to_have_text("Please enter the admin token.")
    page.locator("#admin-token input").fill("wrong")
    page.locator("#system-write").click()
    expect(told).to_have_text("The service does not accept the key or token that was sent.")
    page.locator("#admin-token input").fill(ADMIN_TOKEN)
    page.locator("#system-write").click()
    expect(told).to_have_text("The service's default is replaced.")
    assert script.system_prompt == "Be brief."


def test_a_service_without_an_admin_token_says_so(page: Page, script: Script) -> None:
    script.has_admin_token = False
    page.get_by_text("System prompt", exact=True).click()
    page.locator("#admin-token input").fill("any")
    page.locator("#system-write").click()
    expect(page.locator("#system-notice")).to_contain_text("it was started without ADMIN_TOKEN.")


def test_two_windows_do_not_stop_each_other(
    page: Page, script: Script, page_url: str, fake_gateway: FakeGateway
) -> None:
    script.held_after = 1
    other = page.context.new_page()
    other.goto(page_url)
    expect(other.locator("#title")).to_contain_text("Ask the model")
    for one in (page, other):
        send(one, "What is a grid?")
        expect(answers(one)).to_have_text("A grid")
    other.locator("#stop").click()
    expect(notice(other)).to_have_text("Stopped. What had come is kept.")
    script.go_on.set()
    expect(answers(page)).to_have_text("A grid of thread blocks.")
