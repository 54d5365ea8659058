"""What the documents point to is there: files, headings, make targets; and they look like what they say they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.markdown import CHINESE, DOCUMENTS, ENGLISH, ROOT, anchors, code_spans, fences, links, prose

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

# Where a path in a document may begin; the texts on the two processes leave their folder out.
MODEL = ROOT / "model_repository" / "llm"
BASES = (ROOT, ROOT / "gateway", MODEL, MODEL / "1")
PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|sh|txt|toml|pbtxt|conf|json)|\.[a-z]+")
# Made at run time, or of something else than this project.
NOT_OURS = {
    *("http/protobuf", "docs/images/"),
    *(".venv", ".venv/bin/python", ".env", ".triton", "models/"),
    *("YukinoStuki/Qwen2.5-0.5B-Plus-LLM", "docs/images/"),
    *("owner/name", "bin/tritonserver", "backends/python/", "model.json", ".in"),
    ".docx",
    *("adapter_config.json", "adapter_model.safetensors", "multi_lora.json"),
}


@by_document
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for link in links(document.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), link


@by_document
def test_named_files_exist(document: Path) -> None:
    named = {span for span in code_spans(prose(document.read_text(encoding="utf-8"))) if PATH.fullmatch(span)}
    missing = {name for name in named - NOT_OURS if not any((base / name).exists() for base in BASES)}
    assert not missing


@by_document
def test_make_targets_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    code = code_spans(prose(text)) + [fence.code for fence in fences(text)]
    named = {
        name for part in code for name in re.findall(r"^(?:\w+=\S+ )*make (?:\w+=\S+ )*([a-z-]+)", part, re.MULTILINE)
    }
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert named <= set(targets)


def test_the_two_commands_are_on_the_first_screen() -> None:
    for readme in (ENGLISH, CHINESE):
        beginning = "\n".join(readme.read_text(encoding="utf-8").splitlines()[:30])
        assert [fence.code for fence in fences(beginning)][:2] == ["make serve\n", "make test\n"]


@pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=lambda path: path.name)
def test_every_snippet_is_run_or_says_why_not(readme: Path) -> None:
    for fence in fences(readme.read_text(encoding="utf-8")):
        if fence.language in ("bash", "python"):
            assert re.fullmatch(r"run|serve|not run: .+", fence.marker), fence.code


def test_both_readmes_have_the_same_snippets() -> None:
    english, chinese = (
        [f for f in fences(readme.read_text(encoding="utf-8")) if f.language != "text"] for readme in (ENGLISH, CHINESE)
    )
    assert [(fence.marker, fence.code) for fence in english] == [(fence.marker, fence.code) for fence in chinese]
