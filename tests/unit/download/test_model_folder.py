"""``check_model_folder`` names what is wrong with a folder, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.model_folder import (
    MANIFEST_NAME,
    STARTED_NAME,
    DamagedFileError,
    Origin,
    check_model_folder,
    damaged_files,
    default_model_dir,
    mark_started,
    model_files,
    read_manifest,
    read_started,
    write_manifest,
)
from tests.fakes.model_files import model_files as sound_files
from tests.fakes.model_files import safetensors, sharded_model_files, write_files

ORIGIN = Origin("modelscope:owner/name", "master")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "model", sound_files())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_files(tmp_path / "sharded", sharded_model_files(3))


@pytest.mark.parametrize(
    "model_id, slug",
    [
        ("bundled:smollm2", "bundled__smollm2"),
        ("YukinoStuki/Qwen2.5-0.5B-Plus-LLM", "YukinoStuki__Qwen2.5-0.5B-Plus-LLM"),
        ("modelscope:YukinoStuki/Qwen2.5-0.5B-Plus-LLM", "YukinoStuki__Qwen2.5-0.5B-Plus-LLM"),
        ("hf:Qwen/Qwen3-0.6B", "hf__Qwen__Qwen3-0.6B"),
        ("file:/data/m", "file____data__m"),
    ],
)
def test_default_folder_is_named_after_the_model(model_id: str, slug: str) -> None:
    assert default_model_dir(model_id, Path("/srv")) == Path("/srv/models") / slug


def test_sound_folders_have_no_problems(folder: Path, sharded: Path) -> None:
    assert check_model_folder(folder) == []
    assert check_model_folder(sharded) == []


def test_pickles_beside_safetensors_are_no_problem(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"pickle")
    assert check_model_folder(folder) == []


def test_missing_folder_and_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert check_model_folder(tmp_path / "none") == [f"the model folder {tmp_path / 'none'} does not exist"]
    assert check_model_folder(tmp_path / "file") == [f"{tmp_path / 'file'} is not a folder"]


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"{", "config.json is not valid JSON"),
        (b"\xff\xfe\x00", "config.json is not valid JSON"),
        (b"[" * 100_000, "config.json is not valid JSON"),
        (b"[]", "config.json is not a JSON object"),
        (b"{}", "config.json names no architectures"),
        (b'{"architectures": []}', "config.json names no architectures"),
        (b'{"architectures": null}', "config.json names no architectures"),
        (b"", "config.json is not valid JSON"),
    ],
)
def test_broken_config(folder: Path, content: bytes, problem: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert check_model_folder(folder) == [problem]


def test_missing_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert check_model_folder(folder) == ["config.json is missing"]


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.json", "vocab.txt", "qwen.tiktoken"])
def test_any_kind_of_tokenizer_will_do(folder: Path, name: str) -> None:
    (folder / "tokenizer.json").rename(folder / name)
    assert check_model_folder(folder) == []


def test_missing_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    [problem] = check_model_folder(folder)
    assert problem.startswith("the tokenizer is missing")


def test_every_problem_is_named_at_once(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).unlink()
    assert [problem.split()[0:2] for problem in check_model_folder(folder)] == [
        ["config.json", "is"],
        ["the", "tokenizer"],
        ["no", "weights:"],
    ]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_alone_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    [problem] = check_model_folder(folder)
    assert "pickled" in problem
    assert "safetensors" in problem


def _cut_the_data(content: bytes) -> bytes:
    return content[:-1]


def _cut_the_header(content: bytes) -> bytes:
    return content[:20]


def _cut_the_length(content: bytes) -> bytes:
    return content[:3]


def _nothing(_content: bytes) -> bytes:
    return b""


def _one_byte_more(content: bytes) -> bytes:
    return content + b"\0"


def _no_safetensors(content: bytes) -> bytes:
    return b"PK\x03\x04" * (len(content) // 4)


def _spoilt_header(content: bytes) -> bytes:
    return content[:8] + b"}" + content[9:]


def _no_offsets(_content: bytes) -> bytes:
    return (24).to_bytes(8, "little") + b'{"weight":{"dtype":"U"}}'


def _lfs_pointer(_content: bytes) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n"


@pytest.mark.parametrize(
    "spoil, problem",
    [
        (_cut_the_data, "is truncated: 1112 bytes instead of 1113"),
        (_cut_the_header, "is truncated: 20 bytes, its header alone has 105"),
        (_cut_the_length, "is truncated: 3 bytes"),
        (_nothing, "is truncated: 0 bytes"),
        (_one_byte_more, "is damaged: 1114 bytes instead of 1113"),
        (_no_safetensors, "is not a safetensors file"),
        (_spoilt_header, "is damaged: its header cannot be read"),
        (_no_offsets, "is damaged: its header cannot be read"),
        (_lfs_pointer, "is a Git LFS pointer"),
    ],
)
def test_spoilt_weights(folder: Path, spoil: Callable[[bytes], bytes], problem: str) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    [found] = check_model_folder(folder)
    assert f"model.safetensors {problem}" in found


def test_weights_without_tensors_are_well_formed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert check_model_folder(folder) == []


def test_missing_shard_of_the_index(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert check_model_folder(sharded) == ["model-00002-of-00003.safetensors is missing (a shard of the weights)"]


def test_missing_shard_is_seen_without_an_index(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    assert check_model_folder(sharded) == []
    (sharded / "model-00003-of-00003.safetensors").unlink()
    assert check_model_folder(sharded) == ["model-00003-of-00003.safetensors is missing (a shard of the weights)"]


def test_all_shards_missing(sharded: Path) -> None:
    for shard in sharded.glob("*.safetensors"):
        shard.unlink()
    assert len(check_model_folder(sharded)) == 3


@pytest.mark.parametrize("content", [b"{}", b'{"weight_map": []}', b"not JSON"])
def test_broken_index(sharded: Path, content: bytes) -> None:
    (sharded / "model.safetensors.index.json").write_bytes(content)
    [problem] = check_model_folder(sharded)
    assert problem.startswith("model.safetensors.index.json")


def test_unreadable_file_is_a_problem_and_no_crash(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    [problem] = check_model_folder(folder)
    assert "config.json" in problem


def test_manifest_lists_every_file_and_ends_the_started_mark(folder: Path) -> None:
    write_files(folder, {"sub/extra.json": b"{}", ".cache/x": b"x", "half.incomplete": b"x"})
    mark_started(folder, ORIGIN)
    assert read_started(folder) == ORIGIN
    written = write_manifest(folder, ORIGIN)
    assert read_manifest(folder) == written
    assert read_started(folder) is None
    names = ["config.json", "model.safetensors", "sub/extra.json", "tokenizer.json"]
    assert [entry.name for entry in written.files] == names == list(model_files(folder))
    assert check_model_folder(folder) == []


def test_file_of_the_manifest_missing_or_of_another_size(folder: Path) -> None:
    write_files(folder, {"merges.txt": b"a b", "vocab.json": b"{}"})
    write_manifest(folder, ORIGIN)
    (folder / "merges.txt").unlink()
    (folder / "vocab.json").write_bytes(b"{} ")
    assert check_model_folder(folder) == ["merges.txt is missing", "vocab.json has 3 bytes instead of 2"]


def test_other_content_of_the_same_size_is_found_by_its_hash_only(folder: Path) -> None:
    manifest = write_manifest(folder, ORIGIN)
    size = len(safetensors(1000))
    (folder / "model.safetensors").write_bytes(safetensors(1000, seed=1))
    assert (folder / "model.safetensors").stat().st_size == size
    assert damaged_files(folder, manifest) == {}
    assert list(damaged_files(folder, manifest, hashes=True)) == ["model.safetensors"]


def test_unfinished_download_is_a_problem_though_the_files_look_sound(folder: Path) -> None:
    mark_started(folder, ORIGIN)
    assert check_model_folder(folder) == [
        "the download of modelscope:owner/name (revision master) has not finished: run download_model.py again"
    ]


@pytest.mark.parametrize(
    "content",
    [
        "not JSON",
        "[]",
        "{}",
        json.dumps({"source": "a", "revision": "b", "files": [{}]}),
        json.dumps({"source": "a", "revision": "b", "files": None}),
        json.dumps({"source": "a", "revision": "b", "files": [{"name": "n", "size": "big", "sha256": ""}]}),
    ],
)
def test_damaged_manifest_is_a_problem(folder: Path, content: str) -> None:
    (folder / MANIFEST_NAME).write_text(content)
    with pytest.raises(DamagedFileError, match=MANIFEST_NAME):
        read_manifest(folder)
    [problem] = check_model_folder(folder)
    assert MANIFEST_NAME in problem


def test_damaged_started_mark_is_a_problem(folder: Path) -> None:
    (folder / STARTED_NAME).write_text("{}")
    [problem] = check_model_folder(folder)
    assert STARTED_NAME in problem
