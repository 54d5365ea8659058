"""A service that cannot start says why in a line, soon, and ends with a code other than zero."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, is_running

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def broken_model(tmp_path: Path, default_model: Path) -> Path:
    """A copy of a working model, to be broken by the test."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in default_model.iterdir():  # contents only: the original may be read-only
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    return folder


def fails(settings: dict[str, str], log: Path, within_s: float) -> str:
    """Launch, wait for the end, and return what was printed; nothing may be left running."""
    started = time.monotonic()
    stack = Stack.launch(settings, log)
    try:
        code = stack.process.wait(timeout=within_s)
    finally:
        stack.stop()
    assert code not in (0, None), stack.text()
    assert time.monotonic() - started < within_s
    assert not any(is_running(pid) for pid in stack.pids)
    return stack.text()


def test_missing_model_folder(tmp_path: Path) -> None:
    printed = fails({"MODEL_DIR": str(tmp_path / "nowhere")}, tmp_path / "log", 60)
    assert str(tmp_path / "nowhere") in printed
    assert "Traceback" not in printed


def test_truncated_weights(broken_model: Path, tmp_path: Path) -> None:
    weights = broken_model / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    printed = fails({"MODEL_DIR": str(broken_model)}, tmp_path / "log", 60)
    assert "model.safetensors" in printed
    assert "Traceback" not in printed


def test_broken_config(broken_model: Path, tmp_path: Path) -> None:
    (broken_model / "config.json").write_text("{not json", encoding="utf-8")
    printed = fails({"MODEL_DIR": str(broken_model)}, tmp_path / "log", 60)
    assert "config.json" in printed
    assert "Traceback" not in printed


def test_bad_setting_names_variable_value_and_allowed(default_model: Path, tmp_path: Path) -> None:
    printed = fails({"MODEL_DIR": str(default_model), "MAX_MODEL_LEN": "many"}, tmp_path / "log", 30)
    assert "MAX_MODEL_LEN=many" in printed
    printed = fails({"MODEL_DIR": str(default_model), "TEMPERATURE": "-1"}, tmp_path / "log2", 30)
    assert "TEMPERATURE=-1" in printed


def test_port_taken(default_model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        printed = fails({"MODEL_DIR": str(default_model), "GATEWAY_PORT": port}, tmp_path / "log", 30)
    assert port in printed
    assert "GATEWAY_PORT" in printed


def test_model_that_fails_while_loading_is_given_up(broken_model: Path, tmp_path: Path, stacks: object) -> None:
    """What no check of files sees: the engine itself refuses. Retried, then given up, with the cause in the log."""
    stacks.stop()  # type: ignore[attr-defined]
    config = json.loads((broken_model / "config.json").read_text(encoding="utf-8"))
    (broken_model / "download_manifest.json").unlink(missing_ok=True)  # it knows the size of every file
    config["hidden_size"] += 2  # the weights no longer fit
    (broken_model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    printed = fails({"MODEL_DIR": str(broken_model)}, tmp_path / "log", 280)
    assert "the model cannot be served" in printed
