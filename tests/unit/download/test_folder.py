"""``obtain`` makes folders complete, never mixes two models, and says in one line why it could not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from download.errors import DownloadError
from download.folder import obtain
from download.options import Request
from runtime.model_folder import (
    MANIFEST_NAME,
    STARTED_NAME,
    Origin,
    check_model_folder,
    mark_started,
    read_manifest,
    write_manifest,
)
from tests.fakes.model_files import model_files, safetensors, write_files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path / "source", {**model_files(), "sub/extra.json": b"{}"})


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "models" / "dest"


def copy(source: Path, dest: Path, *, verify: bool = False) -> None:
    obtain(Request(Origin(f"file:{source}", ""), dest), token=None, verify=verify)


def contents(folder: Path) -> dict[str, bytes]:
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: content for name, content in files.items() if name != MANIFEST_NAME}


def test_a_folder_is_copied_and_complete(source: Path, dest: Path) -> None:
    copy(source, dest)
    assert contents(dest) == contents(source)
    assert check_model_folder(dest) == []
    manifest = read_manifest(dest)
    assert manifest is not None
    assert manifest.origin == Origin(f"file:{source}", "")


def test_pickles_other_formats_hidden_files_and_foreign_manifests_are_not_copied(source: Path, dest: Path) -> None:
    write_files(source, dict.fromkeys(["pytorch_model.bin", "sub/x.pt", "m.gguf", ".git/config", "a.onnx"], b"x"))
    write_manifest(source, Origin("modelscope:o/n", "master"))
    copy(source, dest)
    assert sorted(contents(dest)) == ["config.json", "model.safetensors", "sub/extra.json", "tokenizer.json"]


def test_a_complete_folder_needs_neither_its_source_nor_a_writable_place(source: Path, dest: Path) -> None:
    copy(source, dest)
    (dest.parent / f"{dest.name}.lock").unlink()
    source.rename(source.with_name("gone"))
    before = {file: file.stat().st_mtime_ns for file in dest.rglob("*")}
    copy(source, dest)
    assert {file: file.stat().st_mtime_ns for file in dest.rglob("*")} == before
    assert [entry.name for entry in dest.parent.iterdir()] == [dest.name]


def test_damage_is_repaired(source: Path, dest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy(source, dest)
    os.truncate(dest / "model.safetensors", 500)
    (dest / "sub" / "extra.json").unlink()
    copy(source, dest)
    assert contents(dest) == contents(source)
    assert "model.safetensors has 500 bytes instead of 1113" in capsys.readouterr().err


def test_damage_of_the_same_size_is_repaired_when_hashes_are_asked_for(source: Path, dest: Path) -> None:
    copy(source, dest)
    (dest / "model.safetensors").write_bytes(safetensors(1000, seed=1))
    copy(source, dest)
    assert contents(dest) != contents(source)
    copy(source, dest, verify=True)
    assert contents(dest) == contents(source)


def test_an_interrupted_copy_goes_on_and_keeps_what_is_right(source: Path, dest: Path) -> None:
    write_files(dest, {"config.json": (source / "config.json").read_bytes(), "model.safetensors": b"half"})
    kept = (dest / "config.json").stat().st_ino
    mark_started(dest, Origin(f"file:{source}", ""))
    copy(source, dest)
    assert contents(dest) == contents(source)
    assert (dest / "config.json").stat().st_ino == kept


@pytest.mark.parametrize("complete", [True, False])
def test_a_folder_of_another_model_is_left_alone(source: Path, dest: Path, complete: bool) -> None:
    other = Origin("modelscope:owner/other", "v1")
    write_files(dest, model_files(seed=1))
    mark_started(dest, other)
    if complete:
        write_manifest(dest, other)
    before = contents(dest)
    with pytest.raises(DownloadError, match=r"holds modelscope:owner/other \(revision v1\), not file:.*remove"):
        copy(source, dest)
    assert contents(dest) == before


def test_another_revision_is_another_model(dest: Path) -> None:
    write_files(dest, model_files())
    write_manifest(dest, Origin("modelscope:o/n", "v1"))
    with pytest.raises(DownloadError, match=r"holds modelscope:o/n \(revision v1\), not .*revision v2"):
        obtain(Request(Origin("modelscope:o/n", "v2"), dest), token=None, verify=False)


def test_a_folder_with_somebodys_own_files_is_left_alone(source: Path, dest: Path) -> None:
    write_files(dest, {"thesis.tex": b"years of work"})
    with pytest.raises(DownloadError, match=r"not downloaded by this program.*MODEL_DIR"):
        copy(source, dest)
    assert contents(dest) == {"thesis.tex": b"years of work"}


def test_an_empty_mount_point_is_filled(source: Path, dest: Path) -> None:
    (dest / "lost+found").mkdir(parents=True)
    copy(source, dest)
    assert check_model_folder(dest) == []


def test_a_source_that_is_not_sound_is_named_and_leaves_nothing(source: Path, dest: Path) -> None:
    (source / "tokenizer.json").unlink()
    with pytest.raises(DownloadError, match="the tokenizer is missing"):
        copy(source, dest)
    assert not dest.exists()


def test_a_folder_without_an_origin_is_checked_only(source: Path) -> None:
    before = contents(source)
    obtain(Request(None, source), token=None, verify=True)
    assert contents(source) == before
    (source / "config.json").unlink()
    with pytest.raises(DownloadError, match=r"config\.json is missing"):
        obtain(Request(None, source), token=None, verify=False)


def test_a_folder_without_an_origin_is_compared_with_its_manifest(source: Path) -> None:
    write_manifest(source, Origin("modelscope:o/n", "master"))
    (source / "model.safetensors").write_bytes(safetensors(1000, seed=1))
    obtain(Request(None, source), token=None, verify=False)
    with pytest.raises(DownloadError, match="another SHA-256"):
        obtain(Request(None, source), token=None, verify=True)


def test_errors_of_the_system_are_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"file:.*Not a directory|File exists"):
        copy(source, tmp_path / "file" / "dest")


def test_a_failed_check_after_the_copy_keeps_the_folder_marked(
    source: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("download.folder.fetch", lambda *_args: write_files(dest, {"config.json": b"{}"}))
    with pytest.raises(DownloadError, match="names no architectures"):
        copy(source, dest)
    assert (dest / STARTED_NAME).exists()
    assert not (dest / MANIFEST_NAME).exists()
