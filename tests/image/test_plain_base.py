"""The Dockerfile on a base that has nothing but Python: built, started without a network, asked, stopped."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.image.builder import Builder
from tests.image.container import Container

pytestmark = pytest.mark.timeout(1200)  # a build, which the evaluator gives 900 s, and two starts
TOKEN = "ms-a-token-that-must-stay-in-no-layer"
SERVICE_UID = 10001


@dataclass(frozen=True)
class Image:
    """What was built: its description, its Docker configuration, and the file system of a container."""

    description: dict[str, Any]
    config: dict[str, Any]
    root: Path
    store: Path


@pytest.fixture(scope="module")
def image(images: Builder, debian: Path, pip_volumes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Image:
    secret = tmp_path_factory.mktemp("secret") / "token"
    secret.write_text(TOKEN)
    images.image_of(debian, "plain-base")
    images.build(
        "llm-service",
        "plain-base",
        [
            "--build-arg=MODEL_ID=bundled:smollm2",
            "--build-arg=RUN_AS=service",
            f"--secret=id=MODELSCOPE_API_TOKEN,src={secret}",
            *pip_volumes,
        ],
    )
    described = images.inspect("llm-service")
    return Image(described, described["Docker"]["config"], images.mounted("llm-service"), images.store)


@pytest.fixture(scope="module")
def on_transformers(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Started with Docker's own /dev/shm of 64 MB, where vLLM on a CPU does not fit."""
    log = tmp_path_factory.mktemp("container") / "log"
    container = Container.start(image.root, image.config, log, USE_VLLM="false")
    try:
        container.wait_ready()
        yield container
    finally:
        container.kill()


def test_the_image_says_how_it_is_run(image: Image) -> None:
    assert set(image.config["ExposedPorts"]) == {"8000/tcp", "8001/tcp", "8002/tcp"}
    assert image.config["Cmd"] == ["/app/.venv/bin/python", "-m", "runtime", "serve"]
    assert image.config["User"] == "service"
    assert {"BATCH_MODE=1", "MAX_MODEL_LEN=1024", "MODEL_ID=bundled:smollm2"} <= set(image.config["Env"])
    assert image.config["Healthcheck"]["StartPeriod"] == 180 * 10**9


def test_the_token_is_in_no_layer_and_no_description(image: Image) -> None:
    assert TOKEN not in json.dumps(image.description)
    layers = ["--exclude-dir=merged", "--devices=skip", TOKEN, str(image.store)]  # merged: all layers once more
    found = subprocess.run(["grep", "-rlFs", *layers], capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout


def test_the_image_holds_no_more_than_it_runs(image: Image) -> None:
    app = image.root / "app"
    assert {path.name for path in app.iterdir()} == {
        *(".triton", ".venv", ".venv-gateway", ".venv.lock", "models"),  # made in the build
        *("LICENSE", "VERSION", "requirements", "supervisord.conf"),
        *("download", "download_model.py", "gateway", "model_repository", "runtime", "scripts"),
    }
    assert not list((image.root / "root").rglob("*.whl"))


def test_it_answers_from_inside_with_the_network_cut_off(on_transformers: Container) -> None:
    assert on_transformers.interfaces() == ["lo"]
    assert on_transformers.ask("GET", "/") == (200, '{"status":"batch"}')
    assert on_transformers.predict("What is a thread block?", max_new_tokens=8).strip()
    answers = on_transformers.predict(["What is a warp?", "What is a kernel?", "What is a grid?"], max_new_tokens=8)
    assert len(answers) == 3
    assert all(answer.strip() for answer in answers)


def test_metrics_are_published(on_transformers: Container) -> None:
    status, text = on_transformers.ask("GET", "/metrics", port=8002)
    assert status == 200
    assert "nv_inference_request_success" in text
    sockets = on_transformers.run_inside(["/bin/cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout
    assert addresses_listening(sockets, 8002) <= {"00000000", "0" * 32}  # all of this container's
    # The embedded Triton's gRPC is for this container alone; as an IPv6 socket it shows its IPv4 address so.
    assert addresses_listening(sockets, 8001) <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_every_process_is_the_ordinary_user(on_transformers: Container) -> None:
    assert on_transformers.users() == {SERVICE_UID}


def test_the_health_check_of_the_image_passes(image: Image, on_transformers: Container) -> None:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    checked = on_transformers.run_inside(command)
    assert (checked.returncode, checked.stdout.strip()) == (0, '{"status":"batch"}'), checked.stderr


def test_sigterm_stops_it_with_exit_status_0(on_transformers: Container) -> None:
    assert on_transformers.stop() == 0, on_transformers.text()[-4000:]


def test_vllm_serves_where_shared_memory_is_large_enough(image: Image, tmp_path: Path) -> None:
    container = Container.start(image.root, image.config, tmp_path / "log", shm="512m", FORCE_VLLM="1")
    try:
        container.wait_ready()
        assert json.loads(container.ask("GET", "/info")[1])["backend"] == "vllm"
        assert container.predict("What is a thread block?", max_new_tokens=8).strip()
        assert container.stop() == 0, container.text()[-4000:]
    finally:
        container.kill()


def addresses_listening(table: str, port: int) -> set[str]:
    """The local addresses that a port listens on, as the kernel's tables of sockets write them; at least one."""
    rows = [row.split() for row in table.splitlines()]
    found = {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    assert found, f"nobody listens on {port}"
    return found
