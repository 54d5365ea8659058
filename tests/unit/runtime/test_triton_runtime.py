from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import triton_runtime
from runtime.errors import TritonUnavailable
from runtime.interpreter import Interpreter
from runtime.settings import RuntimeSettings
from runtime.triton_runtime import Wheel, assemble, find_installed, obtain, stub_python_version, wheel_or_raise

PYTHON = Interpreter("CPython", (3, 11), Path("/usr/bin/python3"), (), "libpython3.11.so.1.0")
FILES = ("triton_python_backend_stub", "triton_python_backend_utils.py", "libtriton_python.so")


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    """The wheel's files as far as they matter."""
    package = tmp_path / "site" / "pytriton"
    server = package / "tritonserver"
    _write(server / "bin/tritonserver", "the server", 0o755)
    _write(server / "backends/python/libtriton_python.so", "the backend")
    _write(server / "backends/python/triton_python_backend_utils.py", "# utils")
    for version in ("3.10", "3.11"):
        _write(
            server / f"python_backend_stubs/{version}/triton_python_backend_stub", f"libpython{version}.so.1.0", 0o755
        )
    _write(tmp_path / "site/nvidia_pytriton.libs/libtritonserver.so", "the library")
    return Wheel(package, "0.7.0")


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A Triton as in NVIDIA's containers."""
    folder = tmp_path / "opt" / "tritonserver"
    _write(folder / "bin/tritonserver", "the server", 0o755)
    _write(folder / "TRITON_VERSION", "2.60.0\n")
    for name in FILES:
        _write(folder / "backends/python" / name, "libpython3.12.so.1.0")
    return folder


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr(triton_runtime, "CONTAINER_DIR", tmp_path / "no-container")


def settings(**environ: str) -> RuntimeSettings:
    return RuntimeSettings.from_env(environ, Path("/project"))


def _write(file: Path, text: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def test_assembled(wheel: Wheel, tmp_path: Path) -> None:
    runtime = assemble(wheel, tmp_path / "base", PYTHON)
    assert runtime.embedded
    assert runtime.version == "2.51.0"
    assert runtime.server.read_text() == "the server"
    backend = runtime.backend_dir / "python"
    assert (backend / "triton_python_backend_stub").read_text() == "libpython3.11.so.1.0"
    assert (backend / "libtriton_python.so").read_text() == "the backend"
    assert [(folder / "libtritonserver.so").read_text() for folder in runtime.library_path] == ["the library"]
    assert runtime.server.is_symlink(), "nothing large is copied"
    assert stub_python_version(runtime) == "3.11"
    assert len(list((tmp_path / "base").iterdir())) == 1, "no scratch folder stays"


def test_without_links_everything_is_copied(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    runtime = assemble(wheel, tmp_path / "base", PYTHON)
    assert not runtime.server.is_symlink()
    assert runtime.server.stat().st_mode & 0o111
    assert (runtime.library_path[0] / "libtritonserver.so").read_text() == "the library"


def test_a_server_that_lost_its_x_bit_is_copied(wheel: Wheel, tmp_path: Path) -> None:
    """Some installers drop it, and the wheel's folder may not be ours to change."""
    (wheel.package / "tritonserver/bin/tritonserver").chmod(0o644)
    assert assemble(wheel, tmp_path / "base", PYTHON).server.stat().st_mode & 0o111


def test_a_complete_one_is_used_as_it_is(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = assemble(wheel, tmp_path / "base", PYTHON)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("written to")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert assemble(wheel, tmp_path / "base", PYTHON) == first


def test_another_python_wheel_or_place_gets_another_folder(wheel: Wheel, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(wheel.package.parent, moved)
    servers = {
        assemble(one, tmp_path / "base", python).server
        for one, python in [
            (wheel, PYTHON),
            (wheel, replace(PYTHON, version=(3, 10))),
            (replace(wheel, version="0.8.0"), PYTHON),
            (replace(wheel, package=moved / "pytriton"), PYTHON),
        ]
    }
    assert len(servers) == 4


def test_a_broken_one_is_replaced(wheel: Wheel, tmp_path: Path) -> None:
    """Such as links into an environment that was made anew without the wheel for a while."""
    runtime = assemble(wheel, tmp_path / "base", PYTHON)
    stub = runtime.backend_dir / "python" / "triton_python_backend_stub"
    stub.unlink()
    assert assemble(wheel, tmp_path / "base", PYTHON) == runtime
    assert stub.exists()
    assert len(list((tmp_path / "base").iterdir())) == 1


def test_many_at_once(wheel: Wheel, tmp_path: Path) -> None:
    results: list[object] = []
    together = threading.Barrier(8)

    def one() -> None:
        together.wait()
        results.append(assemble(wheel, tmp_path / "base", PYTHON))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1
    assert len(list((tmp_path / "base").iterdir())) == 1


def test_a_place_that_cannot_be_written(wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file")
    with pytest.raises(TritonUnavailable, match="TRITON_RUNTIME_DIR") as caught:
        assemble(wheel, tmp_path / "base", PYTHON)
    assert "\n" not in str(caught.value)


def test_a_wheel_that_is_not_there_or_lacks_something(wheel: Wheel) -> None:
    with pytest.raises(TritonUnavailable, match=r"pip install --no-deps nvidia-pytriton==0\.7\.0"):
        wheel_or_raise(None, PYTHON)
    with pytest.raises(TritonUnavailable, match=r"lacks .*python_backend_stubs/3\.12"):
        wheel_or_raise(wheel, replace(PYTHON, version=(3, 12)))
    assert wheel_or_raise(wheel, PYTHON) is wheel


def test_the_installed_wheel_is_found_without_importing_it() -> None:
    found = Wheel.installed()
    assert found is not None
    assert "pytriton" not in sys.modules
    assert found.package.name == "pytriton"


def test_a_containers_own_comes_first(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_runtime, "CONTAINER_DIR", container)
    runtime = obtain(settings(), {"PATH": "/nowhere"}, PYTHON)
    assert runtime.server == container / "bin/tritonserver"
    assert runtime.backend_dir == container / "backends"
    assert (runtime.embedded, runtime.library_path, runtime.version) == (False, (), "2.60.0")
    assert stub_python_version(runtime) == "3.12"


def test_one_on_path_is_found_through_its_link(container: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tritonserver").symlink_to(container / "bin/tritonserver")
    runtime = find_installed(settings(), {"PATH": str(tmp_path / "bin")})
    assert runtime is not None
    assert runtime.backend_dir == container / "backends"


def test_one_without_a_python_backend_is_passed_over(container: Path) -> None:
    shutil.rmtree(container / "backends/python")
    assert find_installed(settings(), {"PATH": str(container / "bin")}) is None


def test_a_forced_folder(container: Path, wheel: Wheel, tmp_path: Path) -> None:
    runtime = find_installed(settings(TRITON_SERVER_DIR=str(container)), {"PATH": "/nowhere"})
    assert runtime is not None
    assert not runtime.embedded
    assembled = assemble(wheel, tmp_path / "base", PYTHON)
    folder = str(assembled.server.parent.parent)
    assert find_installed(settings(TRITON_SERVER_DIR=folder), {"PATH": "/nowhere"}) == assembled


def test_a_forced_folder_must_be_complete(container: Path) -> None:
    (container / "backends/python/libtriton_python.so").unlink()
    with pytest.raises(TritonUnavailable, match=r"^TRITON_SERVER_DIR=.* has no backends/python/libtriton_python\.so"):
        find_installed(settings(TRITON_SERVER_DIR=str(container)), {})
