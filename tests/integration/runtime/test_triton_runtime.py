"""The real tritonserver from the wheel, assembled and started as supervisord does it, with a model in Python."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from runtime import processes
from tests.integration.runtime.project import FAKES, Project, Service, wait_for

pytestmark = pytest.mark.timeout(90)
RUN_ID = f"test{os.getpid()}"
LOOPBACK = "0100007F"


class Echo:
    """A running Triton with the echo model."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.ports = project.ports[1:]  # gRPC, metrics
        shutil.rmtree(project.root / "model_repository")
        shutil.copytree(FAKES / "echo_repository", project.root / "model_repository")
        self.service = self.start()

    def start(self) -> Service:
        return self._project.start(
            "-m",
            "runtime",
            "triton",
            TRITON_SERVER_DIR="",
            TRITON_RUNTIME_DIR=str(self._project.root / "assembled"),
            SERVICE_RUN_ID=RUN_ID,
            API_KEY="secret-key",
        )

    def client(self) -> triton.InferenceServerClient:
        client = triton.InferenceServerClient(f"127.0.0.1:{self.ports[0]}")
        wait_for(lambda: _ready(client), "Triton is ready", 30)
        return client

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}/metrics") as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    project = Project(tmp_path_factory.mktemp("triton"))
    yield Echo(project)
    project.close()


def _ready(client: triton.InferenceServerClient) -> bool:
    try:
        return bool(client.is_model_ready("echo"))
    except InferenceServerException:
        return False


def infer(client: triton.InferenceServerClient, texts: list[bytes]) -> Any:
    """One request on a stream, its one response."""
    answers: queue.Queue[Any] = queue.Queue()
    text_input = triton.InferInput("text_input", [len(texts)], "BYTES")
    text_input.set_data_from_numpy(np.array(texts, dtype=object))
    client.start_stream(lambda result, error: answers.put(error or result))
    try:
        client.async_stream_infer("echo", [text_input])
        return answers.get(timeout=20)
    finally:
        client.stop_stream()


def test_it_answers_with_the_packages_of_this_environment(echo: Echo) -> None:
    result = infer(echo.client(), ["你好".encode(), b"two"])
    assert result.as_numpy("text_output").tolist() == ["你好".encode(), b"two"]
    facts = json.loads(result.as_numpy("facts")[0])
    assert facts["prefix"] == sys.prefix
    assert facts["version"] == list(sys.version_info[:2])
    assert facts["numpy"] == np.__file__
    assert facts["ssl"]
    assert facts["environment"]["LC_ALL"] == "C.UTF-8"
    assert facts["environment"]["MODEL_DIR"].endswith("/model")
    assert "secret-key" not in facts["environment"].values()


def test_ten_thousand_prompts_go_through_in_one_request(echo: Echo) -> None:
    texts = [b"%05d" % number * 144 for number in range(10_000)]
    assert infer(echo.client(), texts).as_numpy("text_output").tolist() == texts


def test_model_configuration_statistics_and_metrics_are_open(echo: Echo) -> None:
    client = echo.client()
    assert client.get_model_config("echo").config.name == "echo"
    assert client.get_inference_statistics("echo").model_stats[0].name == "echo"
    assert "nv_inference_request_success" in echo.metrics()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_model_repository_index(),
        lambda client: client.load_model("echo"),
        lambda client: client.unload_model("echo"),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("mine", "/mine", 16),
        lambda client: client.get_trace_settings(),
        lambda client: client.update_log_settings({"log_verbose_level": 1}),
    ],
)
def test_doors_that_control_the_server_are_closed(echo: Echo, call: Callable[[Any], object]) -> None:
    with pytest.raises(InferenceServerException, match="restricted"):
        call(echo.client())


def test_it_listens_on_loopback_only_and_not_for_http(echo: Echo) -> None:
    echo.client()
    assert listening(echo.service.process.pid) == {(LOOPBACK, port) for port in echo.ports}


def listening(pid: int) -> set[tuple[str, int]]:
    """IPv4 addresses (the last eight digits, as /proc writes them) and ports that the process listens on."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            sockets.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].rpartition(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add((address[-8:], int(port, 16)))
    return found


def test_a_killed_triton_leaves_no_shared_memory_to_the_next_and_sigterm_ends_it(echo: Echo) -> None:
    echo.client()
    # The stub would notice that Triton is gone and tidy up, so it goes first.
    for pid in [*processes.children(echo.service.process.pid), echo.service.process.pid]:
        os.kill(pid, signal.SIGKILL)
    echo.service.wait()
    left = regions()
    assert left, "Triton names its regions as it is told to"
    echo.service = echo.start()
    infer(echo.client(), [b"again"])
    assert len(regions()) == len(left)
    assert not regions() & left
    echo.service.signal(signal.SIGTERM)
    assert echo.service.wait() == 0
    assert regions() == set()


def regions() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if RUN_ID in name}
