"""Which GPUs there are, by device files, nvidia-smi's answer and ``CUDA_VISIBLE_DEVICES``."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_model.engines.gpus import Gpu, visible_gpus

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
    "wanted, names",
    [("1", ["1"]), ("2,0", ["2", "0"]), ("", []), ("-1", []), ("1,7,0", ["1"]), ("GPU-bbbb-2,0", ["GPU-bbbb-2", "0"])],
)
def test_those_that_are_to_be_seen_in_their_order(tmp_path: Path, wanted: str, names: list[str]) -> None:
    assert [gpu.name for gpu in found(tmp_path, CUDA_VISIBLE_DEVICES=wanted)] == names


def test_a_gpu_by_the_beginning_of_its_name_has_its_memory(tmp_path: Path) -> None:
    assert found(tmp_path, CUDA_VISIBLE_DEVICES="GPU-bb") == [Gpu("GPU-bb", FULL)]


def test_without_nvidia_smi_there_is_one_of_unknown_size(tmp_path: Path) -> None:
    assert found(tmp_path, answer=None) == [Gpu("0")]


@pytest.mark.parametrize("device", ["mxcd", "mxc0"])
def test_metax_gpus_are_as_many_as_the_operator_names(tmp_path: Path, device: str) -> None:
    assert found(tmp_path, device=device) == [Gpu("0", maker="metax")]
    named = found(tmp_path, device=device, CUDA_VISIBLE_DEVICES="0,1")
    assert named == [Gpu("0", maker="metax"), Gpu("1", maker="metax")]
