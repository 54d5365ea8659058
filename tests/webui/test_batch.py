"""The batch tab in a browser."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from tests.fakes.web_gateway import FakeGateway, Refusal, Script
from tests.webui.conftest import wait_for
from webui.client import GatewayClient
from webui.labels import Labels
from webui.settings import WebSettings
from webui.tabs import batch


def upload(page: Page, file: Path) -> None:
    """Open the tab and choose the file; wait until the page has it."""
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-file input[type=file]").set_input_files(file)
    expect(page.locator("#batch-file")).to_contain_text(file.stem)


def jsonl(file: Path, lines: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def set_at_a_time(page: Page, count: int) -> None:
    field = page.locator("#batch-at-a-time input[type=number]")
    field.fill(str(count))
    field.press("Tab")
    expect(field).to_have_value(str(count))


def run(page: Page) -> None:
    page.locator("#batch-start").click()


def test_all_questions_are_asked_scored_and_can_be_downloaded(
    page: Page, script: Script, tmp_path: Path, page_folder: Path
) -> None:
    script.answers = {"one": "线程块是一组线程", "two": ""}
    lines = [
        {"prompt": "one", "reference": "线程块是一组线程"},
        {"prompt": "two", "reference": "x"},
        {"prompt": "three"},
    ]
    upload(page, jsonl(tmp_path / "questions.jsonl", lines))
    set_at_a_time(page, 2)
    run(page)
    notice = page.locator("#batch-notice")
    expect(notice).to_contain_text("Done: 3 questions in")
    expect(notice).to_contain_text("1 without an answer. Mean ROUGE-L F1: 0.5000.")
    rows = page.locator("#batch-results tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0).locator("td")).to_have_text(["1", "one", "线程块是一组线程", "1.0000"])
    expect(rows.nth(1).locator("td")).to_have_text(["2", "two", "the model failed on it", "0.0000"])
    expect(rows.nth(2).locator("td")).to_have_text(["3", "three", "answer to three", ""])
    assert [batch["prompt"] for batch in script.batches] == [["one", "two"], ["three"]]
    wait_for(lambda: not list(page_folder.glob("llm-webui-*")), "the results are left to Gradio, which deletes them")
    with page.expect_download() as download:
        page.locator("#batch-download").click()
    saved = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
    assert saved[0] == {
        "prompt": "one",
        "response": "线程块是一组线程",
        "reference": "线程块是一组线程",
        "rouge_l_f1": 1.0,
    }
    assert saved[1]["error"] == "the model failed on it"
    assert saved[2] == {"prompt": "three", "response": "answer to three"}


def test_progress_is_shown_and_stop_keeps_what_is_answered(page: Page, script: Script, tmp_path: Path) -> None:
    script.held_after = 1
    upload(page, jsonl(tmp_path / "questions.jsonl", [{"question": str(number)} for number in range(6)]))
    set_at_a_time(page, 2)
    run(page)
    notice = page.locator("#batch-notice")
    expect(notice).to_contain_text("2 of 6 answered")
    page.locator("#batch-stop").click()
    expect(notice).to_contain_text("Stopped: 2 of 6 answered in")
    expect(page.locator("#batch-results tbody tr")).to_have_count(2)


def test_an_error_is_a_sentence_and_what_was_answered_is_kept(page: Page, script: Script, tmp_path: Path) -> None:
    script.held_after = 1
    upload(page, jsonl(tmp_path / "questions.jsonl", [{"instruction": str(number)} for number in range(4)]))
    set_at_a_time(page, 2)
    run(page)
    notice = page.locator("#batch-notice")
    expect(notice).to_contain_text("2 of 4 answered")
    script.refusal = Refusal(503, "shutting_down")
    script.go_on.set()
    expect(notice).to_contain_text("The service is shutting down. Stopped: 2 of 4 answered")
    expect(page.locator("#batch-results tbody tr")).to_have_count(2)


def test_a_file_that_cannot_be_used_is_told_by_its_line(page: Page, script: Script, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"prompt": "one"}\nnot JSON\n')
    upload(page, file)
    run(page)
    expect(page.locator("#batch-notice")).to_have_text("Line 2 is not a JSON object with a question in it.")
    assert script.batches == []


def test_a_start_without_a_file_asks_for_one(page: Page, script: Script) -> None:
    page.get_by_role("tab", name="Batch").click()
    run(page)
    expect(page.locator("#batch-notice")).to_have_text("Please choose a file first.")


def test_the_page_answers_others_while_a_file_is_read_and_answers_are_scored(
    fake_gateway: FakeGateway, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = GatewayClient(WebSettings(gateway_url=fake_gateway.url))
    file = jsonl(tmp_path / "questions.jsonl", [{"prompt": "one"}])

    async def run_here() -> list[batch.Update]:
        with gr.Blocks():
            tab = batch.BatchTab(client, Labels(), gr.State("en"))
        for name in ("read_questions", "scored"):
            monkeypatch.setattr(batch, name, beside_others(getattr(batch, name), asyncio.get_running_loop()))
        return [update async for update in tab._run("en", str(file), 1, 0, SimpleNamespace(session_hash="s"))]

    with ThreadPoolExecutor(1) as thread:  # Playwright has an event loop in this one
        updates = thread.submit(asyncio.run, run_here()).result()
    assert "Done: 1 question" in updates[-1][0]


def beside_others(function: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> Callable[..., Any]:
    """The function, once the event loop has done something else after it was called."""

    def called(*arguments: Any) -> Any:
        went_on = threading.Event()
        loop.call_soon_threadsafe(went_on.set)
        assert went_on.wait(10), f"the event loop stands still during {function.__name__}"
        return function(*arguments)

    return called
