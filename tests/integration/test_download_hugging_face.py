"""``download_model.py`` through Hugging Face's real client, against a hub on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.model_folder import Origin, check_model_folder, read_manifest
from tests.fakes.download_process import NOBODY_LISTENS, Downloader
from tests.fakes.model_files import model_files, safetensors, write_files
from tests.fakes.model_hub import ModelHub

MAIN = model_files(3_000_000)
TAGGED = model_files(1_000, seed=1)


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with ModelHub({"owner/name": {"main": {**MAIN, "pytorch_model.bin": b"pickle"}, "v1": TAGGED}}) as running:
        yield running


@pytest.fixture
def downloader(hub: ModelHub, tmp_path: Path) -> Downloader:
    return Downloader(tmp_path / "home", hub.url)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "models" / "name"


@pytest.mark.parametrize("revision, files", [("", MAIN), ("v1", TAGGED)])
def test_a_model_is_fetched_without_its_pickles(
    hub: ModelHub, downloader: Downloader, dest: Path, revision: str, files: dict[str, bytes]
) -> None:
    done = downloader.run("--model", "hf:owner/name", "--dest", dest, MODEL_REVISION=revision)
    assert (done.code, done.out) == (0, f"{dest}\n"), done.err
    assert {name: (dest / name).read_bytes() for name in files} == files
    assert check_model_folder(dest) == []
    manifest = read_manifest(dest)
    assert manifest is not None
    assert manifest.origin == Origin("hf:owner/name", revision or "main")
    assert [entry.name for entry in manifest.files] == sorted(files)
    assert hub.fetched("pytorch_model.bin") == []
    hub.seen.clear()
    assert downloader.run("--model", "hf:owner/name", "--dest", dest, MODEL_REVISION=revision).code == 0
    assert hub.seen == []


@pytest.mark.parametrize(
    "arguments, cause",
    [
        (("--model", "hf:owner/name", "--revision", "v9"), "RevisionNotFound"),
        (("--model", "hf:owner/unknown"), "RepositoryNotFound"),
    ],
)
def test_an_unknown_revision_or_model_is_named(
    downloader: Downloader, dest: Path, arguments: tuple[str, ...], cause: str
) -> None:
    failed = downloader.run(*arguments, "--dest", dest)
    assert (failed.code, failed.out) == (1, "")
    assert cause in failed.err.splitlines()[-1]
    assert not dest.exists()


def test_bytes_that_are_not_the_listed_ones_are_refused(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    hub.corrupt.add("model.safetensors")
    failed = downloader.run("--model", "hf:owner/name", "--dest", dest)
    assert failed.code == 1
    assert "model.safetensors is not what the hub lists" in failed.err
    hub.corrupt.clear()
    assert downloader.run("--model", "hf:owner/name", "--dest", dest).code == 0
    assert (dest / "model.safetensors").read_bytes() == MAIN["model.safetensors"]


def test_a_file_spoilt_on_the_disk_is_fetched_again_alone(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    arguments = ("--model", "hf:owner/name", "--dest", dest)
    assert downloader.run(*arguments).code == 0
    hub.seen.clear()
    weights = dest / "model.safetensors"
    written = weights.stat().st_mtime
    write_files(dest, {weights.name: safetensors(3_000_000, seed=2)})  # the same size
    os.utime(weights, (written, written))  # a disk that forgets does not tell when
    repaired = downloader.run(*arguments, "--verify")
    assert repaired.code == 0, repaired.err
    assert weights.read_bytes() == MAIN[weights.name]
    assert len(hub.fetched(weights.name)) == 1
    assert hub.fetched("config.json") == []


def test_after_a_failure_a_partial_folder_will_not_do_without_a_network(
    hub: ModelHub, downloader: Downloader, dest: Path
) -> None:
    hub.corrupt.add("model.safetensors")
    assert downloader.run("--model", "hf:owner/name", "--dest", dest).code == 1
    offline = downloader.run("--model", "hf:owner/name", "--dest", dest, HF_ENDPOINT=NOBODY_LISTENS)
    assert (offline.code, offline.out) == (1, "")
    assert "Connection refused" in offline.err.splitlines()[-1]
    assert "has not finished" in check_model_folder(dest)[0]


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_modelscopes_token_stays_away_and_hugging_faces_is_sent_and_hidden(
    hub: ModelHub, downloader: Downloader, dest: Path, name: str
) -> None:
    arguments = ("--model", "hf:owner/name", "--dest", dest)
    hub.token = "hf_right"
    refused = downloader.run(*arguments, "--token", "ms-4f1c", **{name: " hf_wrong\t"})
    assert refused.code == 1
    assert "hf_wrong" not in refused.err + refused.out
    assert {request.authorization for request in hub.seen} == {"Bearer hf_wrong"}
    assert downloader.run(*arguments, **{name: "hf_right"}).code == 0
