"""The CPU limit of a container, as Linux' control groups tell it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_model.engines.cpu_limit import usable_cpus


@pytest.mark.parametrize(
    "files, cpus",
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "nonsense\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "50000\n"}, 8),
    ],
)
def test_the_cores_or_the_limit_whichever_is_less(tmp_path: Path, files: Mapping[str, str], cpus: float) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cpus(8, tmp_path) == cpus


def test_this_machine_has_some() -> None:
    assert 0 < usable_cpus(2) <= 2
