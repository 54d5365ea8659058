"""The page in a real browser: one page process and one Chromium for all tests, a fresh window for each.

These tests run in the page's own environment: `make test-web`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.stack import ROOT, Ports
from tests.fakes.web_gateway import FakeGateway, Script

try:
    from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
except ModuleNotFoundError:
    raise pytest.UsageError("the page's tests have an environment of their own: run `make test-web`") from None

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    raise pytest.UsageError("no Chromium found: apt-get install chromium fonts-noto-cjk")

PATIENCE_S = 60.0
IMAGES = ROOT / "docs" / "images"
CONTEXTS: dict[Browser, dict[str, BrowserContext]] = {}
expect.set_options(timeout=PATIENCE_S * 1000)


@contextmanager
def web_page(gateway_url: str, log: Path, **variables: str) -> Iterator[str]:
    """Run the page for a gateway; yields its address."""
    port = str(Ports.free().gateway)
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environ |= {"WEBUI_PORT": port, "WEBUI_GATEWAY_URL": gateway_url, **variables}
    command = [sys.executable, "-m", "webui"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until_served(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


def wait_until_served(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(url, timeout=10, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)


@pytest.fixture(scope="session")
def fake_gateway() -> Iterator[FakeGateway]:
    gateway = FakeGateway()
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture
def script(fake_gateway: FakeGateway) -> Iterator[Script]:
    """What the fake gateway does in this test."""
    fake_gateway.script = Script()
    yield fake_gateway.script
    fake_gateway.script.go_on.set()


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page over the fake gateway has its temporary files."""
    return tmp_path_factory.mktemp("webui")


@pytest.fixture(scope="session")
def page_url(fake_gateway: FakeGateway, page_folder: Path) -> Iterator[str]:
    """The page over the fake gateway."""
    log = page_folder / "page.log"
    with web_page(fake_gateway.url, log, API_KEY="the-key", TMPDIR=str(page_folder)) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # --no-sandbox: Chromium's own needs a user other than root. /dev/shm may be small in a container.
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


def context_of(browser: Browser, locale: str) -> BrowserContext:
    """One for each language: windows of the same one share what has been fetched, as a reader's do."""
    contexts = CONTEXTS.setdefault(browser, {})
    if locale not in contexts:
        contexts[locale] = browser.new_context(locale=locale, viewport={"width": 1280, "height": 900})
    return contexts[locale]


@contextmanager
def window(browser: Browser, url: str, locale: str = "en-US") -> Iterator[Page]:
    """A fresh window on the page, filled in and ready; nothing that it asks for may be on another host."""
    asked: list[str] = []
    page = context_of(browser, locale).new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    expect(page.locator("#title")).to_contain_text("Ask the model" if locale.startswith("en") else "向模型提问")
    yield page
    page.close()
    hosts = {urlsplit(one).netloc for one in asked if not one.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(url).netloc}


@pytest.fixture
def page(browser: Browser, page_url: str, script: Script) -> Iterator[Page]:
    """The page over the fake gateway, in an English browser."""
    with window(browser, page_url) as opened:
        yield opened


def wait_for(condition: object, what: str) -> None:
    """Wait for a callable to become true."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.02)


def picture(page: Page, name: str) -> None:
    """Write a screenshot for the documents, where one is asked for (`SCREENSHOTS=1`)."""
    if os.environ.get("SCREENSHOTS") == "1":
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / name)
