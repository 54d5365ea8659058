from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime import triton_command
from runtime.interpreter import Interpreter
from runtime.settings import RuntimeSettings
from runtime.triton_command import remove_shared_memory, shm_prefix, triton_arguments, triton_environment
from runtime.triton_runtime import TritonRuntime

EMBEDDED = TritonRuntime(Path("/t/bin/tritonserver"), Path("/t/backends"), (Path("/t/libs"),), True, "2.51.0")
CONTAINER = replace(EMBEDDED, library_path=(), embedded=False)


@pytest.fixture
def python(tmp_path: Path) -> Interpreter:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libpython3.11.so.1.0").touch()
    return Interpreter("CPython", (3, 11), Path("/venv/bin/python"), (tmp_path / "lib",), "libpython3.11.so.1.0")


def settings(**environ: str) -> RuntimeSettings:
    return RuntimeSettings.from_env(environ, Path("/project"))


def flags(runtime: TritonRuntime = EMBEDDED, **environ: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in triton_arguments(settings(**environ), runtime, "run")[1:]:
        name, _, value = text.partition("=")
        found.setdefault(name, []).append(value)
    return found


def test_the_interpreters_library_comes_first_and_what_was_there_stays(python: Interpreter, tmp_path: Path) -> None:
    env = triton_environment({"LD_LIBRARY_PATH": "/driver", "PATH": "/bin"}, settings(), EMBEDDED, python)
    assert env["LD_LIBRARY_PATH"] == f"{tmp_path}/lib:/t/libs:/driver"
    assert env["PATH"] == "/venv/bin:/bin"


def test_a_containers_triton_finds_its_libraries_by_itself(python: Interpreter) -> None:
    assert "LD_LIBRARY_PATH" not in triton_environment({}, settings(), CONTAINER, python)
    env = triton_environment({"LD_LIBRARY_PATH": "/driver"}, settings(), CONTAINER, python)
    assert env["LD_LIBRARY_PATH"] == "/driver"


def test_text_is_utf_8_and_the_model_is_named(python: Interpreter) -> None:
    env = triton_environment({"LC_ALL": "C", "VLLM_LOG_LEVEL": "DEBUG"}, settings(), EMBEDDED, python)
    assert (env["LC_ALL"], env["LANG"]) == ("C.UTF-8", "C.UTF-8")
    assert env["MODEL_DIR"] == "/project/models/bundled__smollm2"
    assert env["VLLM_LOG_LEVEL"] == "DEBUG"


def test_the_gateways_secrets_stay_with_the_gateway(python: Interpreter) -> None:
    names = ("API_KEY", "ADMIN_TOKEN", "MODELSCOPE_API_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    headers = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
    secrets = dict.fromkeys((*names, *headers), "secret")
    assert "secret" not in triton_environment(secrets, settings(), EMBEDDED, python).values()


def test_ports_and_addresses() -> None:
    found = flags(TRITON_GRPC_PORT="9001", TRITON_METRICS_PORT="9002")
    assert (found["--grpc-port"], found["--grpc-address"]) == (["9001"], ["127.0.0.1"])
    assert (found["--metrics-port"], found["--metrics-address"]) == (["9002"], ["127.0.0.1"])
    assert found["--allow-http"] == ["false"]
    assert flags(CONTAINER)["--grpc-address"] == ["0.0.0.0"]
    assert flags(TRITON_METRICS_ADDRESS="0.0.0.0")["--metrics-address"] == ["0.0.0.0"]


def test_ipv6_addresses_as_triton_takes_them() -> None:
    found = flags(TRITON_GRPC_ADDRESS="::1", TRITON_METRICS_ADDRESS="::")
    assert (found["--grpc-address"], found["--metrics-address"]) == (["[::1]"], ["ipv6:::"])


def test_a_fraction_of_a_second_of_grace_is_not_lost() -> None:
    assert flags(SHUTDOWN_GRACE_S="2.5")["--exit-timeout-secs"] == ["33"]  # 30 more for the engines


def test_the_doors_close_with_another_secret_each_time() -> None:
    closed = {flags()["--grpc-restricted-protocol"][0] for _ in range(3)}
    assert len(closed) == 3
    protocols = {text.partition(":")[0] for text in closed}
    assert protocols == {"shared-memory,model-repository,trace,logging"}


def test_gpu_metrics_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for present, text in [(True, "true"), (False, "false")]:
        monkeypatch.setattr(triton_command, "gpu_present", lambda present=present: present)
        assert flags()["--allow-gpu-metrics"] == [text]


def test_shared_memory_of_this_run_is_removed_and_no_other(tmp_path: Path) -> None:
    assert f"python,shm-region-prefix-name={shm_prefix('run')}" in flags()["--backend-config"]
    mine, others = tmp_path / f"{shm_prefix('run')}1", tmp_path / f"{shm_prefix('run2')}1"
    mine.touch()
    others.touch()
    remove_shared_memory("run", tmp_path)
    assert list(tmp_path.iterdir()) == [others]
