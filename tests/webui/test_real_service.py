"""The page over the real service: Triton, vLLM, the gateway, and the page itself as supervisord's program."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.stack import ROOT, Ports, Stack
from tests.webui.conftest import picture, window
from tests.webui.test_batch import run, upload
from tests.webui.test_chat import answers, notice, send, set_number

pytestmark = pytest.mark.timeout(600)

SERVICE_PYTHON = str(ROOT / ".venv" / "bin" / "python")
TOKEN = "only-for-this-test"
QUESTION = "什么是数据并行性？"
FEW_QUESTIONS = [
    {"prompt": "What is a thread block?", "reference": "A group of threads."},
    {"prompt": "What is a grid?"},
]


@dataclass(frozen=True)
class Service:
    """The running service and the address of its page."""

    stack: Stack
    page_url: str
    has_course_model: bool


@pytest.fixture(scope="module")
def service(shared_dir: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for this file: the course's model, else the bundled one, with `WEBUI=1`."""
    model = str(shared_dir / "models" / "course-qa") if shared_dir else bundled_model()
    port = str(Ports.free().gateway)
    settings = {"MODEL_DIR": model, "WEBUI": "1", "WEBUI_PORT": port, "ADMIN_TOKEN": TOKEN}
    stack = Stack.start(settings, tmp_path_factory.mktemp("service") / "log", python=SERVICE_PYTHON)
    url = f"http://127.0.0.1:{port}/"
    try:
        stack.wait_for(lambda: is_served(url), 120, "serving its page")
        yield Service(stack, url, shared_dir is not None)
    finally:
        assert stack.stop() == 0


def bundled_model() -> str:
    command = [SERVICE_PYTHON, "download_model.py", "--model", "bundled:smollm2"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240)
    return done.stdout.strip()


def is_served(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with window(browser, service.page_url) as opened:
        yield opened


@pytest.fixture
def chinese_page(browser: Browser, service: Service) -> Iterator[Page]:
    with window(browser, service.page_url, locale="zh-CN") as opened:
        yield opened


def test_a_question_is_typed_and_its_streamed_answer_read(chinese_page: Page, service: Service) -> None:
    set_number(chinese_page, "#max-tokens", "64")
    send(chinese_page, QUESTION)
    expect(notice(chinese_page)).to_contain_text(re.compile(r"^\s*\d+ 个词元"))
    expect(answers(chinese_page)).to_have_count(1)
    answer = answers(chinese_page).inner_text().strip()
    assert answer
    if service.has_course_model:
        assert answer.startswith("数据并行性是指")
    picture(chinese_page, "web-chat-zh.png")


def test_reference_material_is_shown_beside_the_answer(page: Page) -> None:
    page.get_by_text("Reference material", exact=True).click()
    page.locator("#material-text textarea").fill(
        "线程块是一组线程。\n\n共享内存由线程块中的线程共用。\n\n核函数在设备上运行。"
    )
    set_number(page, "#max-tokens", "64")
    send(page, "什么是共享内存？")
    expect(page.locator("#passages textarea")).to_have_value(re.compile("共享内存由线程块中的线程共用"))
    expect(notice(page)).to_contain_text("tokens in")
    picture(page, "web-chat-material.png")


def test_a_question_file_is_answered_and_scored(
    page: Page, service: Service, shared_dir: Path | None, tmp_path: Path
) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in FEW_QUESTIONS), encoding="utf-8")
    if shared_dir:
        file = shared_dir / "data" / "basic_qa.jsonl"
    total = len(file.read_text(encoding="utf-8").splitlines())
    upload(page, file)
    run(page)
    told = page.locator("#batch-notice")
    expect(told).to_contain_text(f"Done: {total} questions in", timeout=240_000)
    expect(page.locator("#batch-results tbody tr")).to_have_count(total)
    score = re.search(r"Mean ROUGE-L F1: (\d\.\d+)", told.inner_text())
    assert score
    if service.has_course_model:
        assert float(score[1]) > 0.99
    with page.expect_download() as download:
        page.locator("#batch-download").click()
    saved = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
    assert len(saved) == total
    assert all(line["response"] for line in saved)
    picture(page, "web-batch.png")


def test_the_status_tab_knows_the_engine(page: Page, service: Service) -> None:
    info = service.stack.info()
    page.get_by_role("tab", name="Status").click()
    expect(page.locator("#status-service")).to_contain_text(info["model"])
    expect(page.locator("#status-service")).to_contain_text(f"{info['backend']} {info['backend_version']}")
    expect(page.locator("#status-engines tbody tr")).to_have_count(1)
    expect(page.locator("#status-service svg polyline")).to_have_count(1)
    picture(page, "web-status.png")


def test_what_the_service_refuses_is_a_sentence(page: Page, service: Service) -> None:
    send(page, "word " * 20_000)
    expect(notice(page)).to_contain_text("The service does not accept this request:")
    expect(answers(page)).to_have_count(0)


def test_the_system_prompt_is_replaced_for_all(page: Page, service: Service) -> None:
    page.get_by_text("System prompt", exact=True).click()
    before = service.stack.client.get(f"{service.stack.url}/system_prompt").json()["system_prompt"]
    expect(page.locator("#system-prompt textarea")).to_have_value(before)
    for text in ("Be brief.", before):
        page.locator("#system-prompt textarea").fill(text)
        page.locator("#admin-token input").fill(TOKEN)
        page.locator("#system-write").click()
        expect(page.locator("#system-notice")).to_have_text("The service's default is replaced.")
        page.locator("#system-read").click()
        expect(page.locator("#system-notice")).to_have_text("This is the service's default.")
        assert service.stack.client.get(f"{service.stack.url}/system_prompt").json()["system_prompt"] == text
