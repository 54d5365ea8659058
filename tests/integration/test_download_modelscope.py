"""``download_model.py`` through ModelScope's real client, against a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from runtime.model_folder import check_model_folder
from tests.fakes.download_process import NOBODY_LISTENS, Downloader, Run
from tests.fakes.model_files import model_files, safetensors, write_files
from tests.fakes.model_hub import ModelHub

WEIGHTS = "model.safetensors"
MASTER = model_files(5_000_000)
TAGGED = model_files(1_000, seed=1)
PICKLE = {"pytorch_model.bin": b"pickle", "sub/optimizer.pt": b"pickle"}
FOREIGN = {"download_manifest.json": b"{}", ".gitattributes": b"x"}


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    models = {"owner/name": {"master": {**MASTER, **PICKLE, **FOREIGN}, "v1": TAGGED}}
    models["owner/pickled"] = {"master": {"config.json": MASTER["config.json"], **PICKLE}}
    with ModelHub(models) as running:
        yield running


@pytest.fixture
def downloader(hub: ModelHub, tmp_path: Path) -> Downloader:
    return Downloader(tmp_path / "home", hub.url)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "models" / "name"


def assert_complete(folder: Path, files: dict[str, bytes]) -> None:
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert check_model_folder(folder) == []


def cut_short(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    """Leave a partial folder: the connection drops after 3 of 5 MB."""
    hub.cut_after[WEIGHTS] = 3_000_000
    broken = downloader.run("--model", "owner/name", "--dest", dest)
    assert (broken.code, broken.out) == (1, "")
    assert WEIGHTS in broken.err
    assert "has not finished" in check_model_folder(dest)[0]
    hub.cut_after.clear()
    hub.seen.clear()


def test_a_model_is_fetched_without_its_pickles_and_a_second_run_asks_nobody(
    hub: ModelHub, downloader: Downloader, dest: Path
) -> None:
    first = downloader.run("--model", "owner/name", "--dest", dest)
    assert (first.code, first.out) == (0, f"{dest}\n"), first.err
    assert_complete(dest, MASTER)
    assert not any(hub.fetched(name) for name in (*PICKLE, "download_manifest.json"))
    hub.seen.clear()
    second = downloader.run(MODEL_ID="modelscope:owner/name", MODEL_DIR=str(dest))
    assert (second.code, second.out) == (0, f"{dest}\n")
    assert hub.seen == []


def test_a_revision_is_fetched_and_no_other_one_goes_into_its_folder(
    hub: ModelHub, downloader: Downloader, dest: Path
) -> None:
    assert downloader.run("--model", "owner/name", "--revision", "v1", "--dest", dest).code == 0
    assert_complete(dest, TAGGED)
    refused = downloader.run("--model", "owner/name", "--dest", dest)
    assert refused.code == 1
    assert "holds modelscope:owner/name (revision v1), not modelscope:owner/name (revision master)" in refused.err
    assert_complete(dest, TAGGED)


@pytest.mark.parametrize(
    "arguments, cause",
    [
        (("--model", "owner/name", "--revision", "v9"), "revision not found"),
        (("--model", "owner/unknown"), "model not found"),
    ],
)
def test_an_unknown_revision_or_model_is_named_and_leaves_no_folder(
    downloader: Downloader, dest: Path, arguments: tuple[str, ...], cause: str
) -> None:
    failed = downloader.run(*arguments, "--dest", dest)
    assert (failed.code, failed.out) == (1, "")
    last = failed.err.splitlines()[-1]
    assert arguments[1] in last
    assert cause in last
    assert "Traceback" not in failed.err
    assert not dest.exists()


def test_a_model_that_is_pickled_only_is_refused(downloader: Downloader, dest: Path) -> None:
    failed = downloader.run("--model", "owner/pickled", "--dest", dest)
    assert failed.code == 1
    assert "no weights" in failed.err
    assert "only safetensors are fetched" in failed.err
    assert not list(dest.rglob("*.bin"))


def test_after_a_cut_the_next_run_fetches_only_the_rest(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    cut_short(hub, downloader, dest)
    resumed = downloader.run("--model", "owner/name", "--dest", dest)
    assert resumed.code == 0, resumed.err
    assert_complete(dest, MASTER)
    assert [request.range for request in hub.fetched(WEIGHTS)] == ["bytes=3000000-"]
    assert hub.fetched("config.json") == []


def test_after_a_kill_the_next_run_fetches_only_the_rest(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    def has_a_megabyte(_run: Run) -> bool:
        return sum(file.stat().st_size for file in dest.glob("*.incomplete")) >= 1_000_000

    hub.held[WEIGHTS] = Event()
    with downloader.start("--model", "owner/name", "--dest", dest) as run:
        run.wait_until(has_a_megabyte)
        run.process.kill()
        run.process.wait()
    hub.held.pop(WEIGHTS).set()
    hub.seen.clear()
    assert downloader.run("--model", "owner/name", "--dest", dest).code == 0
    assert_complete(dest, MASTER)
    [request] = hub.fetched(WEIGHTS)
    assert request.range is not None
    assert int(request.range.removeprefix("bytes=").rstrip("-")) >= 1_000_000


def test_two_at_once_fetch_once(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    hub.held[WEIGHTS] = Event()
    arguments = ("--model", "owner/name", "--dest", dest)
    with downloader.start(*arguments) as first:
        first.wait_until(lambda _run: bool(hub.fetched(WEIGHTS)))
        with downloader.start(*arguments) as second:
            second.wait_until(lambda run: run.says("another process is downloading"))
            hub.held[WEIGHTS].set()
            ends = first.finish(), second.finish()
    assert [(end.code, end.out) for end in ends] == [(0, f"{dest}\n")] * 2
    assert_complete(dest, MASTER)
    assert len(hub.fetched(WEIGHTS)) == len(hub.fetched("config.json")) == 1


def test_bytes_that_are_not_the_listed_ones_are_refused(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    hub.corrupt.add(WEIGHTS)
    failed = downloader.run("--model", "owner/name", "--dest", dest)
    assert (failed.code, failed.out) == (1, "")
    last = failed.err.splitlines()[-1]
    assert WEIGHTS in last
    assert "Hash mismatch" in last
    assert not (dest / WEIGHTS).exists()
    hub.corrupt.clear()
    assert downloader.run("--model", "owner/name", "--dest", dest).code == 0
    assert_complete(dest, MASTER)


def test_a_file_spoilt_on_the_disk_is_fetched_again_alone(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    assert downloader.run("--model", "owner/name", "--dest", dest).code == 0
    hub.seen.clear()
    write_files(dest, {WEIGHTS: safetensors(5_000_000, seed=2)})  # the same size
    assert downloader.run("--model", "owner/name", "--dest", dest, "--verify").code == 0
    assert_complete(dest, MASTER)
    assert [request.file for request in hub.seen] == ["", WEIGHTS]


def test_without_a_network_a_complete_folder_will_do(downloader: Downloader, dest: Path) -> None:
    assert downloader.run("--model", "owner/name", "--dest", dest).code == 0
    offline = downloader.run("--model", "owner/name", "--dest", dest, MODELSCOPE_ENDPOINT=NOBODY_LISTENS)
    assert (offline.code, offline.out) == (0, f"{dest}\n")


def test_without_a_network_a_partial_folder_will_not_do_but_is_kept(
    hub: ModelHub, downloader: Downloader, dest: Path
) -> None:
    cut_short(hub, downloader, dest)
    offline = downloader.run("--model", "owner/name", "--dest", dest, MODELSCOPE_ENDPOINT=NOBODY_LISTENS)
    assert (offline.code, offline.out) == (1, "")
    assert "Connection refused" in offline.err.splitlines()[-1]
    assert "has not finished" in check_model_folder(dest)[0]
    assert downloader.run("--model", "owner/name", "--dest", dest).code == 0
    assert [request.range for request in hub.fetched(WEIGHTS)] == ["bytes=3000000-"]


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_the_token_reaches_the_hub_and_nothing_else(
    hub: ModelHub, downloader: Downloader, dest: Path, tmp_path: Path, by: str
) -> None:
    hub.token = "ms-4f1c-right"
    arguments = ("--model", "owner/name", "--dest", dest)
    given = ("--token", hub.token) if by == "argument" else ()
    variables = {"MODELSCOPE_API_TOKEN": hub.token} if by == "variable" else {}
    fetched = downloader.run(*arguments, *given, **variables)
    assert fetched.code == 0, fetched.err
    assert {request.authorization for request in hub.seen} == {f"Bearer {hub.token}"}
    written = [file for file in tmp_path.rglob("*") if file.is_file() and hub.token.encode() in file.read_bytes()]
    assert written == []  # the two streams of the run are among these files


def test_a_wrong_token_is_not_shown_though_the_hub_repeats_it(
    hub: ModelHub, downloader: Downloader, dest: Path
) -> None:
    hub.token = "ms-4f1c-right"
    failed = downloader.run("--model", "owner/name", "--dest", dest, "--token", "ms-77aa-wrong")
    assert failed.code == 1
    assert "no access with Bearer ***" in failed.err
    assert "ms-77aa-wrong" not in failed.err + failed.out


def test_a_blank_token_is_no_token(hub: ModelHub, downloader: Downloader, dest: Path) -> None:
    blank = downloader.run("--model", "owner/name", "--dest", dest, "--token", "", MODELSCOPE_API_TOKEN=" ")
    assert blank.code == 0, blank.err
    assert {request.authorization for request in hub.seen} == {None}
