"""``python -m tools.upload``: ModelScope's real client against a local hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tools.fakes.upload_hub import UploadHub

TOKEN = "ms-secret-token"


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with UploadHub(TOKEN) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "my-model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "qwen2"}')
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights" * 1000)
    (made / "README.md").write_text("# My model\n")
    (made / "checkpoint-10").mkdir()
    (made / "checkpoint-10" / "model.safetensors").write_bytes(b"older")
    return made


def upload(hub: UploadHub, *arguments: object, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MODELSCOPE_ENDPOINT": hub.url}
    if token is not None:
        environ["MODELSCOPE_API_TOKEN"] = token
    command = [sys.executable, "-m", "tools.upload", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_a_folder_arrives_byte_for_byte(hub: UploadHub, folder: Path, tmp_path: Path) -> None:
    done = upload(hub, folder, "me/my-model", "--private", "--message", "first", "--json", tmp_path / "done.json")
    assert done.returncode == 0, done.stderr
    published = {name: content for name, content in hub.models["me/my-model"].items() if name != ".gitattributes"}
    names = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert published == {name: (folder / name).read_bytes() for name in names}
    assert hub.blobs  # the weights went the way of large files
    assert hub.made[0]["Visibility"] == 1  # private
    assert [message.startswith("first") for message in hub.messages] == [True]
    result = json.loads((tmp_path / "done.json").read_text())
    assert (result["model"], result["created"], result["files"]) == ("me/my-model", True, 4)
    assert "4 files" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]  # the client leaves nothing behind


def test_a_model_that_is_there_is_not_made_again_and_what_it_has_is_not_sent_again(
    hub: UploadHub, folder: Path
) -> None:
    done = upload(hub, folder, "me/my-model")
    assert done.returncode == 0, done.stderr
    (folder / "README.md").write_text("# Better\n")
    puts = [request for request in hub.seen if request.startswith("PUT")]
    done = upload(hub, folder, "me/my-model")
    assert done.returncode == 0, done.stderr
    assert len(hub.made) == 1
    assert hub.models["me/my-model"]["README.md"] == b"# Better\n"
    assert [request for request in hub.seen if request.startswith("PUT")] == puts


def test_a_wrong_token_is_an_error_that_does_not_show_it(hub: UploadHub, folder: Path) -> None:
    done = upload(hub, folder, "me/my-model", token="wrong-secret")
    assert done.returncode == 1, done.stderr
    assert "error: me/my-model:" in done.stderr
    assert "wrong-secret" not in done.stdout + done.stderr


def test_a_commit_that_is_refused_is_an_error_that_does_not_show_the_token(hub: UploadHub, folder: Path) -> None:
    hub.broken = True
    done = upload(hub, folder, "me/my-model")
    assert done.returncode == 1, done.stderr
    assert "refused ***" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no safetensors weights"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_an_incomplete_folder_is_refused(hub: UploadHub, folder: Path, missing: str, reason: str) -> None:
    (folder / missing).unlink()
    done = upload(hub, folder, "me/my-model")
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr
    assert not hub.seen


def test_pickled_weights_are_refused(hub: UploadHub, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    done = upload(hub, folder, "me/my-model")
    assert done.returncode == 2, done.stderr
    assert "pytorch_model.bin is pickled" in done.stderr


def test_what_is_missing_or_malformed_is_named(hub: UploadHub, folder: Path) -> None:
    done = upload(hub, folder, "my-model")
    assert done.returncode == 2, done.stderr
    assert "must be owner/name" in done.stderr
    done = upload(hub, folder, "me/my-model", token=None)
    assert done.returncode == 2, done.stderr
    assert "MODELSCOPE_API_TOKEN is not set" in done.stderr
