"""``download_model.py`` as a command: drafts, exit codes, folders as they are, and the bundled model for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.model_folder import check_model_folder
from tests.fakes.download_process import Downloader
from tests.fakes.model_files import model_files, write_files
from tests.fakes.model_hub import ModelHub


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    files = {"owner/main": {"master": model_files()}, "owner/draft": {"master": model_files(seed=1)}}
    with ModelHub(files) as running:
        yield running


@pytest.fixture
def downloader(hub: ModelHub, tmp_path: Path) -> Downloader:
    folders = {"MODEL_DIR": str(tmp_path / "main"), "SPEC_DRAFT_MODEL_DIR": str(tmp_path / "draft")}
    return Downloader(tmp_path / "home", hub.url, folders)


@pytest.fixture
def without_torch(tmp_path: Path) -> str:
    """Return a folder for PYTHONPATH in which torch and transformers are modules that fail."""
    broken = 'raise RuntimeError(f"{__name__} was imported")'
    write_files(tmp_path / "broken", {f"{name}.py": broken.encode() for name in ("torch", "transformers")})
    return str(tmp_path / "broken")


def test_model_and_draft_are_fetched_and_only_the_models_folder_is_printed(
    downloader: Downloader, tmp_path: Path
) -> None:
    done = downloader.run("--model", "owner/main", "--draft", "owner/draft")
    assert (done.code, done.out) == (0, f"{tmp_path / 'main'}\n"), done.err
    assert check_model_folder(tmp_path / "main") == []
    assert check_model_folder(tmp_path / "draft") == []


def test_a_required_draft_that_fails_is_exit_code_2(downloader: Downloader, tmp_path: Path) -> None:
    failed = downloader.run("--model", "owner/main", "--draft", "owner/none")
    assert (failed.code, failed.out) == (2, "")
    assert "the draft model failed: modelscope:owner/none" in failed.err
    assert check_model_folder(tmp_path / "main") == []


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_an_optional_draft_that_fails_is_told_and_no_failure(downloader: Downloader, tmp_path: Path, by: str) -> None:
    optional = ("--draft-optional",) if by == "argument" else ()
    variables = {"SPEC_DRAFT_OPTIONAL": "1"} if by == "variable" else {}
    done = downloader.run("--model", "owner/main", "--draft", "owner/none", *optional, **variables)
    assert (done.code, done.out) == (0, f"{tmp_path / 'main'}\n")
    assert "the draft model failed, going on without it: modelscope:owner/none" in done.err
    assert not (tmp_path / "draft").exists()


def test_a_main_model_that_fails_is_exit_code_1_whatever_the_draft(hub: ModelHub, downloader: Downloader) -> None:
    failed = downloader.run("--model", "owner/none", "--draft", "owner/draft", "--draft-optional")
    assert (failed.code, failed.out) == (1, "")
    assert not any(request.model == "owner/draft" for request in hub.seen)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--modle", "x"), "unrecognized arguments: --modle"),
        (("--model", "x"), "MODEL_ID=x: allowed are"),
    ],
)
def test_a_bad_command_line_is_one_line_and_not_the_drafts_exit_code(
    downloader: Downloader, arguments: tuple[str, ...], told: str
) -> None:
    failed = downloader.run(*arguments)
    assert (failed.code, failed.out) == (1, "")
    [line] = failed.err.splitlines()
    assert told in line


def test_help_names_the_sources_and_hides_old_spellings(downloader: Downloader) -> None:
    told = downloader.run("--help")
    assert told.code == 0
    assert "bundled:smollm2" in told.out
    assert "--model_name" not in told.out


def test_model_dir_alone_is_checked_and_printed(tmp_path: Path, without_torch: str) -> None:
    folder = write_files(tmp_path / "mine", model_files())
    downloader = Downloader(tmp_path / "home", environ={"MODEL_DIR": str(folder), "PYTHONPATH": without_torch})
    assert downloader.run().out == f"{folder}\n"
    (folder / "tokenizer.json").unlink()
    failed = downloader.run()
    assert (failed.code, failed.out) == (1, "")
    assert "the tokenizer is missing" in failed.err


@pytest.mark.parametrize("scheme", ["modelscope", "hf"])
def test_a_hub_needs_no_torch(hub: ModelHub, tmp_path: Path, without_torch: str, scheme: str) -> None:
    hub.models["owner/main"]["main"] = model_files()
    downloader = Downloader(tmp_path / "home", hub.url, {"PYTHONPATH": without_torch})
    done = downloader.run("--model", f"{scheme}:owner/main", "--dest", tmp_path / "main")
    assert done.code == 0, done.err


def test_a_real_model_is_taken_from_a_folder(tmp_path: Path, course_qa_model: Path, without_torch: str) -> None:
    downloader = Downloader(tmp_path / "home", environ={"PYTHONPATH": without_torch})
    done = downloader.run("--model", f"file:{course_qa_model}", "--dest", tmp_path / "copy")
    assert (done.code, done.out) == (0, f"{tmp_path / 'copy'}\n"), done.err
    assert check_model_folder(course_qa_model) == check_model_folder(tmp_path / "copy") == []
    assert sorted(file.name for file in course_qa_model.iterdir()) == sorted(
        file.name for file in (tmp_path / "copy").iterdir() if file.name != "download_manifest.json"
    )


@pytest.mark.engine
def test_the_bundled_model_becomes_an_ordinary_folder(tmp_path: Path, without_torch: str) -> None:
    downloader, dest = Downloader(tmp_path / "home"), tmp_path / "smollm2"
    first = downloader.run("--dest", dest)
    assert (first.code, first.out) == (0, f"{dest}\n"), first.err
    assert check_model_folder(dest) == []
    config = json.loads((dest / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "bfloat16")
    assert (dest / "model.safetensors").stat().st_size < 280e6
    assert "<|im_start|>" in (dest / "chat_template.jinja").read_text()
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in dest.iterdir() if file.suffix != ".json")
    second = downloader.run("--dest", dest, PYTHONPATH=without_torch)
    assert (second.code, second.out) == (0, f"{dest}\n")
