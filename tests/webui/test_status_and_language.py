"""The status tab, the two languages, a service that is not there: in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.e2e.stack import Ports
from tests.fakes.web_gateway import Script
from tests.webui.conftest import web_page, window


def open_status(page: Page) -> None:
    page.get_by_role("tab", name="Status").click()


def test_the_state_of_service_and_engines_is_shown_and_followed(page: Page, script: Script) -> None:
    open_status(page)
    service = page.locator("#status-service")
    expect(service).to_contain_text("fake-model")
    expect(service.locator("tr", has_text=re.compile("^Prompts in hand"))).to_contain_text("7")
    expect(page.locator("#status-engines tbody td")).to_have_text(["vllm-0", "ready", "3", "4", "0.5"])
    rate = service.locator("tr", has_text="Generated tokens per second").locator("td").last
    expect(rate).to_have_text(re.compile(r"^[1-9]\d*\.\d$"))
    script.state = "recovering"
    expect(service).to_contain_text("recovering from a fault")
    expect(service.locator("svg polyline")).to_have_count(1)


def test_the_browsers_language_is_taken_and_can_be_changed(browser: Browser, page_url: str, script: Script) -> None:
    with window(browser, page_url, locale="zh-CN") as page:
        expect(page.locator("#send")).to_have_text("发送")
        page.locator("#send").click()
        expect(page.locator("#chat-notice")).to_have_text("请先输入问题。")
        page.get_by_label("English").check()
        expect(page.locator("#title")).to_contain_text("Ask the model")
        expect(page.locator("#send")).to_have_text("Send")
        expect(page.get_by_role("tab", name="Status")).to_be_visible()
        page.locator("#send").click()
        expect(page.locator("#chat-notice")).to_have_text("Please type a question first.")


def test_a_service_that_is_not_there_is_told_on_every_tab(browser: Browser, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{Ports.free().gateway}"
    sentence = f"The service at {nobody} cannot be reached; is it running?"
    with web_page(nobody, tmp_path / "page.log") as url, window(browser, url) as page:
        page.locator("#question textarea").fill("Anybody there?")
        page.locator("#send").click()
        expect(page.locator("#chat-notice")).to_have_text(sentence)
        open_status(page)
        expect(page.locator("#status-notice")).to_have_text(sentence)


def test_the_document_takes_nothing_from_another_host(page_url: str) -> None:
    reply = httpx.get(page_url, trust_env=False)
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^\"' >]+", reply.text)
    assert "fonts.googleapis.com" not in reply.text
