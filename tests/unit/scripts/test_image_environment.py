from __future__ import annotations

from pathlib import Path

import pytest

from runtime import triton_runtime
from scripts import image_environment
from scripts.image_environment import Base, ImageError, main, pin


def names(requirements: list[str]) -> list[str]:
    return [line.partition("==")[0] for line in requirements]


def test_a_base_with_vllm_and_a_triton_gets_only_the_supervisor() -> None:
    base = Base(vllm="0.10.0", numpy="2.2.6", has_triton=True, missing=())
    assert names(base.additions()) == ["supervisor"]


def test_without_a_triton_it_gets_the_embedded_one_by_hash() -> None:
    base = Base(vllm="0.10.0", numpy="1.26.4", has_triton=False, missing=())
    assert names(base.additions()) == ["supervisor", "nvidia-pytriton"]
    assert "--hash=sha256:" in base.additions()[1]


def test_numpy_2_is_overlaid_where_the_embedded_triton_is_used() -> None:
    base = Base(vllm="0.10.0", numpy="2.2.6", has_triton=False, missing=())
    assert base.additions()[-1] == "numpy==1.26.4"


def test_a_pin_has_its_own_hashes_and_no_others() -> None:
    entry = pin("bundles.txt", "nvidia-pytriton")
    assert entry.count("==") == 1
    assert "--hash" in entry


def test_a_package_of_no_list_is_named() -> None:
    with pytest.raises(ImageError, match=r"cpu\.txt has no no-such-package"):
        pin("cpu.txt", "no-such-package")


def test_what_the_base_has_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    metadata_file = tmp_path / "vllm-0.10.0.dist-info" / "METADATA"
    metadata_file.parent.mkdir()
    metadata_file.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.10.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Base.of_this_python().vllm == "0.10.0"


def test_a_python_that_cannot_host_triton_ends_the_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["image_environment.py"])
    assert main(check=lambda: "no shared library: install libpython3.11") == 1
    assert capsys.readouterr().err == "image: no shared library: install libpython3.11\n"


def test_a_base_without_vllm_and_with_a_python_of_no_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_environment, "PYTHONS_OF_THE_LISTS", ("3.99",))
    with pytest.raises(ImageError, match=r"has no vLLM, and Python 3\.\d+.*CPython 3\.99"):
        image_environment.model_environment(Base(None, None, False, ()), "cpu")


def test_a_vllm_without_its_own_dependencies_is_refused() -> None:
    with pytest.raises(ImageError, match=r"has vLLM 0\.10\.0, but not jinja2, torch"):
        image_environment.model_environment(Base("0.10.0", None, True, ("jinja2", "torch")), "cpu")


def test_what_the_system_lacks_is_named_where_it_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert image_environment.can_be_loaded("libc.so.6")
    assert not image_environment.can_be_loaded("libno-such-thing.so.1")
    image_environment.system_packages([])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ImageError, match="lacks libnuma1, and has no apt-get"):
        image_environment.system_packages(["libnuma1"])


def test_a_triton_is_looked_for_where_the_launcher_looks() -> None:
    assert image_environment.CONTAINER_DIR == triton_runtime.CONTAINER_DIR
    assert image_environment.WHEEL == triton_runtime.WHEEL
