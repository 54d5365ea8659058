"""The Dockerfile on a base with vLLM, built as the evaluator does: no argument but the base, and a model hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.model_files import safetensors
from tests.fakes.model_hub import ModelHub
from tests.image import vllm_base
from tests.image.builder import Builder
from tests.image.container import Container
from tests.unit.model.tiny_model import write_model_folder

pytestmark = pytest.mark.timeout(900)
MODEL = "YukinoStuki/Qwen2.5-0.5B-Plus-LLM"  # the Dockerfile's default
TOKEN = "ms-token-of-the-one-who-builds"


@dataclass(frozen=True)
class Image:
    """What was built, and what its base had."""

    config: dict[str, Any]
    root: Path
    base_packages: set[str]
    hub: ModelHub


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model without sense: the echo backend only needs its tokenizer and its chat template."""
    folder = write_model_folder(tmp_path_factory.mktemp("model"), max_position_embeddings=4096)
    config = folder / "tokenizer_config.json"
    # transformers 5 writes a class's name that 4 does not know.
    config.write_text(json.dumps({**json.loads(config.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}))
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return {**files, "model.safetensors": safetensors(1000)}


@pytest.fixture(scope="module")
def image(
    images: Builder,
    debian: Path,
    pip_volumes: list[str],
    model_files: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Image]:
    python = vllm_base.python_310()
    if python is None:
        pytest.skip("no CPython 3.10 with a shared library on this machine")
    root = tmp_path_factory.mktemp("vllm-base") / "root"
    shutil.copytree(debian, root, symlinks=True, ignore=lambda folder, names: names if folder.endswith("/dev") else [])
    packages = vllm_base.distributions(vllm_base.add_to(root, python))
    secret = tmp_path_factory.mktemp("secret") / "token"
    secret.write_text(TOKEN)
    with ModelHub({MODEL: {"master": model_files}}, token=TOKEN) as hub:
        environment = ["--env=LD_LIBRARY_PATH=/opt/conda/lib", f"--env=MODELSCOPE_ENDPOINT={hub.url}"]
        images.image_of(root, "vllm-base", *environment)
        shutil.rmtree(root)
        images.build("with-vllm", "vllm-base", [f"--secret=id=MODELSCOPE_API_TOKEN,src={secret}", *pip_volumes])
        config = images.inspect("with-vllm")["Docker"]["config"]
        yield Image(config, images.mounted("with-vllm"), packages, hub)


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    running = Container.start(image.root, image.config, tmp_path_factory.mktemp("container") / "log", USE_VLLM="echo")
    try:
        running.wait_ready()
        yield running
    finally:
        running.kill()


def test_the_base_keeps_its_packages(image: Image) -> None:
    base = image.root / vllm_base.PREFIX / "lib" / "python3.10" / "site-packages"
    assert vllm_base.distributions(base) == image.base_packages


def test_the_model_gets_only_what_the_base_lacks(image: Image) -> None:
    (added,) = (image.root / "app" / ".venv" / "lib").glob("python3.10/site-packages")
    names = {path.name.partition("-")[0] for path in added.glob("*.dist-info")}
    assert names == {"numpy", "nvidia_pytriton", "supervisor"}
    assert (added / "numpy-1.26.4.dist-info").is_dir()  # goes before the base's NumPy 2


def test_the_default_model_is_fetched_with_the_token_in_the_build(image: Image) -> None:
    folder = image.root / "app" / "models" / MODEL.replace("/", "__")
    assert (folder / "download_manifest.json").is_file()
    assert image.hub.fetched("model.safetensors")
    assert f"MODEL_ID={MODEL}" in image.config["Env"]


def test_it_runs_as_root_for_devices_that_may_be_roots(image: Image, container: Container) -> None:
    assert image.config["User"] == "root"
    assert container.users() == {0}


def test_triton_runs_the_model_on_the_bases_python(container: Container) -> None:
    assert container.interfaces() == ["lo"]
    assert container.ask("GET", "/") == (200, '{"status":"batch"}')
    versions = json.loads(container.ask("GET", "/info")[1])["versions"]
    assert versions["python"].startswith("3.10.")
    assert (versions["numpy"], versions["transformers"]) == ("1.26.4", "4.53.2")
    questions = [f"What is number {number}?" for number in range(300)]
    answers = container.predict(questions, max_new_tokens=64)
    assert len(answers) == len(questions)
    assert all(answers)


def test_sigterm_stops_it_with_exit_status_0(container: Container) -> None:
    assert container.stop() == 0, container.text()[-4000:]
