"""Which torch is taken: the CPU build where pip finds one, else the registry's; and only one that can be imported."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from scripts.torch_build import Attempt, NoTorch, attempts, install_torch

PIN = "torch==2.13.0"
CONFIGURED, PYTORCH_INDEX, REGISTRY = range(3)


@dataclass
class Machine:
    """A machine on which some ways find a torch, and some of those can be imported."""

    found: set[int]
    importable: set[int]
    ways: tuple[Attempt, ...] = field(default_factory=lambda: attempts(PIN, "cpu.txt"))
    tried: list[int] = field(default_factory=list)
    installed: int | None = None

    def install(self, way: Attempt) -> str | None:
        number = self.ways.index(way)
        self.tried.append(number)
        if number not in self.found:
            return f"nothing found ({number})"
        assert self.installed is None, "a torch of another build is still there"
        self.installed = number
        return None

    def import_problem(self) -> str | None:
        return None if self.installed in self.importable else "libcudart.so: cannot open shared object file"

    def uninstall(self) -> None:
        self.installed = None

    def run(self) -> None:
        install_torch(self.ways, self.install, self.import_problem, self.uninstall)


@pytest.mark.parametrize(
    ("found", "importable", "expected"),
    [
        ({0, 1, 2}, {0, 1, 2}, [CONFIGURED]),  # a local wheel, or a mirror with CPU builds
        ({1, 2}, {1, 2}, [CONFIGURED, PYTORCH_INDEX]),  # an ordinary machine on the internet
        ({2}, {2}, [CONFIGURED, PYTORCH_INDEX, REGISTRY]),  # a registry only
        ({0, 1}, {1}, [CONFIGURED, PYTORCH_INDEX]),  # the first one found is broken
    ],
)
def test_takes_the_first_build_that_can_be_imported(found: set[int], importable: set[int], expected: list[int]) -> None:
    machine = Machine(found, importable)
    machine.run()
    assert machine.tried == expected
    assert machine.installed == expected[-1]


def test_without_any_torch_every_reason_is_told() -> None:
    machine = Machine(found={REGISTRY}, importable=set())
    with pytest.raises(NoTorch) as caught:
        machine.run()
    assert machine.installed is None
    for reason in ("nothing found (0)", "nothing found (1)", "libcudart.so"):
        assert reason in str(caught.value)


def test_only_the_last_resort_brings_dependencies_and_moves_no_pinned_version() -> None:
    configured, pytorch_index, registry = attempts(PIN, "cpu.txt")
    for way in (configured, pytorch_index):
        assert "--no-deps" in way.pip_arguments
        assert way.pip_arguments[-1] == f"{PIN}+cpu"
    assert registry.pip_arguments == ("--constraint", "cpu.txt", PIN)
    assert "--index-url" not in configured.pip_arguments  # pip's own configuration decides
