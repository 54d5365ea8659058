"""Install the torch that fits a machine without a GPU.

A package registry's own torch is the CUDA build: it cannot be imported without several GB of CUDA packages. So the CPU
build (version ``…+cpu``) is taken wherever pip finds one, first where pip is configured to look (a local wheel, a
mirror), then on the PyTorch project's index; only where neither can be reached, the registry's build with all it asks
for. A build counts once it can be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Attempt:
    """One way to get torch: what to tell the user, and the arguments for ``pip install``."""

    title: str
    pip_arguments: tuple[str, ...]


class NoTorch(Exception):
    """No attempt gave a torch that can be imported; the text lists each one's reason."""


def attempts(pin: str, constraints: str) -> tuple[Attempt, ...]:
    """Return the ways to install ``pin`` (``torch==X.Y.Z``), best first.

    ``constraints`` is the pinned list whose versions must not move when torch brings dependencies.
    """
    cpu_build = f"{pin}+cpu"
    # A machine that reaches only its registry must find out quickly that the index is not there.
    impatient = ("--timeout", "15", "--retries", "1")
    return (
        Attempt("torch's CPU build", ("--no-deps", cpu_build)),
        Attempt(
            "torch's CPU build from the PyTorch project (200 MB)",
            ("--no-deps", *impatient, "--index-url", PYTORCH_CPU_INDEX, cpu_build),
        ),
        Attempt("the registry's torch with its CUDA packages (several GB)", ("--constraint", constraints, pin)),
    )


def install_torch(
    ways: Sequence[Attempt],
    install: Callable[[Attempt], str | None],
    import_problem: Callable[[], str | None],
    uninstall: Callable[[], None],
) -> None:
    """Try the ways in order until torch can be imported.

    ``install`` and ``import_problem`` return a reason when they fail, else None. A torch that installs but cannot be
    imported is removed before the next way. Raises :class:`NoTorch`.
    """
    reasons = []
    for way in ways:
        problem = install(way)
        if problem is None:
            problem = import_problem()
            if problem is None:
                return
            uninstall()
        reasons.append(f"  {way.title}: {problem}")
    raise NoTorch("\n".join(["torch could not be installed:", *reasons]))
