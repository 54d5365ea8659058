"""The command line and the environment say what is fetched and where to."""

from __future__ import annotations

from pathlib import Path

import pytest

from download.errors import DownloadError
from download.options import Options, Request
from runtime.model_folder import Origin

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def parse(*argv: str, **environ: str) -> Options:
    return Options.parse(argv, environ)


def test_nothing_said_means_the_bundled_model() -> None:
    options = parse()
    assert options.model == Request(Origin("bundled:smollm2", ""), ROOT / "models" / "bundled__smollm2")
    assert (options.draft, options.draft_optional, options.verify, options.token) == (None, False, False, None)


def test_everything_from_the_environment() -> None:
    options = parse(
        MODEL_ID="o/n",
        MODEL_REVISION="v2",
        MODEL_DIR="/m",
        SPEC_DRAFT_MODEL_ID="hf:o/draft",
        SPEC_DRAFT_MODEL_REVISION="v3",
        SPEC_DRAFT_MODEL_DIR="/d",
        SPEC_DRAFT_OPTIONAL="true",
        MODELSCOPE_API_TOKEN=" secret ",
    )
    assert options.model == Request(Origin("modelscope:o/n", "v2"), Path("/m"))
    assert options.draft == Request(Origin("hf:o/draft", "v3"), Path("/d"))
    assert options.draft_optional
    assert options.token == "secret"


def test_the_command_line_wins_and_its_blank_values_do_not_count() -> None:
    environ = {"MODEL_ID": "o/environ", "MODEL_REVISION": "v1", "MODELSCOPE_API_TOKEN": "environ"}
    options = parse("--model", "o/argument", "--revision", "", "--token", " ", **environ)
    assert options.model.origin == Origin("modelscope:o/argument", "v1")
    assert options.token == "environ"


def test_the_tokens_of_all_hubs_are_secrets() -> None:
    assert parse(HF_TOKEN=" ").secrets == ()
    options = parse("--token", "ms", HF_TOKEN=" hf\n", HUGGING_FACE_HUB_TOKEN="older ")
    assert options.secrets == ("ms", "hf", "older")


def test_blank_variables_are_unset() -> None:
    names = ("MODEL_ID", "MODEL_DIR", "SPEC_DRAFT_MODEL_ID", "SPEC_DRAFT_OPTIONAL", "MODELSCOPE_API_TOKEN")
    assert parse(**dict.fromkeys(names, "  ")) == parse()


@pytest.mark.parametrize(
    "model_id, origin",
    [
        ("o/n", Origin("modelscope:o/n", "master")),
        ("modelscope:o/n", Origin("modelscope:o/n", "master")),
        ("hf:o/n", Origin("hf:o/n", "main")),
        ("hf:gpt2", Origin("hf:gpt2", "main")),
        ("file:/a/b", Origin("file:/a/b", "")),
        ("bundled:smollm2", Origin("bundled:smollm2", "")),
    ],
)
def test_sources_and_their_default_revisions(model_id: str, origin: Origin) -> None:
    assert parse("--model", model_id).model.origin == origin


def test_sources_without_revisions_ignore_one() -> None:
    assert parse("--model", "bundled:smollm2", "--revision", "v1") == parse("--model", "bundled:smollm2")


def test_model_dir_alone_is_served_as_it_is_but_dest_alone_is_filled() -> None:
    assert parse(MODEL_DIR="/m").model == Request(None, Path("/m"))
    assert parse("--dest", "/m").model == Request(Origin("bundled:smollm2", ""), Path("/m"))
    assert parse("--dest", "/d", MODEL_DIR="/m").model == Request(Origin("bundled:smollm2", ""), Path("/d"))


def test_draft_folder_alone_is_used_as_it_is() -> None:
    assert parse(SPEC_DRAFT_MODEL_DIR="/d").draft == Request(None, Path("/d"))


def test_folders_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("--dest", "a/../b").model.folder == tmp_path / "b"
    assert parse("--model", "file:src").model.origin == Origin(f"file:{tmp_path / 'src'}", "")


def test_spellings_of_the_older_program() -> None:
    older = parse("--model_name", "o/n", "--draft_model_name", "o/d", "--draft_revision", "v1", "--draft_optional")
    newer = parse("--model", "o/n", "--draft", "o/d", "--draft-optional", SPEC_DRAFT_MODEL_REVISION="v1")
    assert older == newer


@pytest.mark.parametrize(
    "model_id",
    ["name", "a/b/c", "ftp:a/b", "bundled:other", "file:", "hf:", "hf:a/b/c", "/a/b", "a b/c", "modelscope:x"],
)
def test_bad_model_id_names_variable_value_and_what_is_allowed(model_id: str) -> None:
    with pytest.raises(DownloadError, match="allowed are modelscope:") as caught:
        parse(MODEL_ID=model_id)
    assert str(caught.value).startswith(f"MODEL_ID={model_id}: ")
    with pytest.raises(DownloadError, match="SPEC_DRAFT_MODEL_ID="):
        parse(SPEC_DRAFT_MODEL_ID=model_id)


@pytest.mark.parametrize("value, optional", [("1", True), ("YES", True), ("0", False), ("off", False)])
def test_draft_optional_values(value: str, optional: bool) -> None:
    assert parse(SPEC_DRAFT_OPTIONAL=value).draft_optional is optional


def test_bad_draft_optional() -> None:
    with pytest.raises(DownloadError, match="SPEC_DRAFT_OPTIONAL=maybe: allowed are 1, true"):
        parse(SPEC_DRAFT_OPTIONAL="maybe")


@pytest.mark.parametrize("argv", [["--modle", "x"], ["--model"], ["stray"], ["--mod", "o/n"]])
def test_bad_command_line_is_one_line(argv: list[str]) -> None:
    with pytest.raises(DownloadError, match=r"^[^\n]+ \(see --help\)$"):
        parse(*argv)
