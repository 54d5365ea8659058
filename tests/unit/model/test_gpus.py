"""Which GPUs there are, by device files, nvidia-smi's answer and ``CUDA_VISIBLE_DEVICES``."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from llm_model.engines.gpus import Gpu, Maker, visible_gpus
from tests.fakes.programs import write_program

ANSWER = "0, GPU-aaaa-1, 81559\n1, GPU-bbbb-2, 81559\n2, GPU-cccc-3, [N/A]\n"
FULL = 81559 << 20


def found(tmp_path: Path, answer: str | None = ANSWER, device: str = "nvidia0", **environ: str) -> list[Gpu]:
    (tmp_path / device).touch()
    return visible_gpus(environ, tmp_path, lambda: answer)


def test_a_machine_without_a_gpu(tmp_path: Path) -> None:
    assert found(tmp_path, device="null", CUDA_VISIBLE_DEVICES="0") == []


def test_all_gpus_with_their_memory(tmp_path: Path) -> None:
    assert found(tmp_path) == [Gpu("0", FULL), Gpu("1", FULL), Gpu("2", None)]


@pytest.mark.parametrize(
    "line", ["", "Warning: infoROM is corrupted at gpu 0000:01:00.0", "a, b", "No devices were found, sorry, again"]
)
def test_a_line_that_is_no_row_is_passed_over(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, answer=f"{line}\n{ANSWER}{line}\n") == found(tmp_path)


@pytest.mark.parametrize(
    "mode, memory", [("Enabled", None), ("Disabled", FULL), ("[N/A]", FULL), ("[Not Supported]", FULL)]
)
def test_a_divided_gpu_does_not_tell_the_memory_of_its_slices(tmp_path: Path, mode: str, memory: int | None) -> None:
    answer = f"0, GPU-aaaa-1, 81559, {mode}\n1, GPU-bbbb-2, 81559, Disabled\n"
    assert found(tmp_path, answer) == [Gpu("0", memory), Gpu("1", FULL)]
    assert found(tmp_path, answer, CUDA_VISIBLE_DEVICES="0") == [Gpu("0", memory)]
    assert found(tmp_path, answer, CUDA_VISIBLE_DEVICES="MIG-x") == [Gpu("MIG-x", None)]


@pytest.mark.parametrize("knows_mig", [True, False])
def test_nvidia_smi_is_asked_for_divided_gpus_where_it_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_mig: bool
) -> None:
    refusal = "" if knows_mig else 'case "$1" in *mig*) exit 2;; esac; '
    row = f"0, GPU-aaaa-1, 81559{', Enabled' if knows_mig else ''}"
    write_program(tmp_path / "bin" / "nvidia-smi", f'#!/bin/sh\n{refusal}echo "{row}"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "nvidia0").touch()
    assert visible_gpus({}, tmp_path) == [Gpu("0", None if knows_mig else FULL)]


def test_nvidia_smi_that_is_missing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidia0").touch()
    with caplog.at_level(logging.WARNING, logger="llm.model"):
        assert visible_gpus({}, tmp_path) == [Gpu("0")]
    assert "the GPUs cannot be counted" in caplog.text


@pytest.mark.parametrize(
    "wanted, names",
    [("1", ["1"]), ("2,0", ["2", "0"]), ("", []), ("-1", []), ("1,7,0", ["1"]), ("GPU-bbbb-2,0", ["GPU-bbbb-2", "0"])],
)
def test_those_that_are_to_be_seen_in_their_order(tmp_path: Path, wanted: str, names: list[str]) -> None:
    assert [gpu.name for gpu in found(tmp_path, CUDA_VISIBLE_DEVICES=wanted)] == names


def test_a_gpu_by_the_beginning_of_its_name_has_its_memory(tmp_path: Path) -> None:
    assert found(tmp_path, CUDA_VISIBLE_DEVICES="GPU-bb") == [Gpu("GPU-bb", FULL)]


def test_without_nvidia_smi_there_is_one_of_unknown_size(tmp_path: Path) -> None:
    assert found(tmp_path, answer=None) == [Gpu("0")]


@pytest.mark.parametrize("device, maker", [("mxcd", "metax"), ("nvidia0", "nvidia")])
@pytest.mark.parametrize(
    "wanted, names",
    [
        (None, ["0", "1", "2"]),
        ("0", ["0"]),
        ("1,0", ["1", "0"]),
        ("GPU-x,3", ["GPU-x", "3"]),
        ("1,-1,0", ["1"]),
        ("-1", []),
        ("", []),
    ],
)
def test_gpus_that_nothing_counts_are_those_named_or_those_needed(
    tmp_path: Path, device: str, maker: Maker, wanted: str | None, names: list[str]
) -> None:
    (tmp_path / device).touch()
    environ = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    there = visible_gpus(environ, tmp_path, lambda: None, uncounted=3)
    assert there == [Gpu(name, maker=maker) for name in names]


def test_gpus_that_are_counted_are_not_more_than_there_are(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    assert len(visible_gpus({}, tmp_path, lambda: ANSWER, uncounted=8)) == 3


@pytest.mark.parametrize("device", ["mxcd", "mxc0"])
def test_metax_gpus_are_as_many_as_the_operator_names(tmp_path: Path, device: str) -> None:
    assert found(tmp_path, device=device) == [Gpu("0", maker="metax")]
    named = found(tmp_path, device=device, CUDA_VISIBLE_DEVICES="0,1")
    assert named == [Gpu("0", maker="metax"), Gpu("1", maker="metax")]
