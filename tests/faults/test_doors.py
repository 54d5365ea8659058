"""What is closed, tried from outside on the running service: protocols, secrets, users, pickled weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.conftest import ROOT
from tests.e2e.stack import Ports, Stack, descendants
from tests.faults.test_machine import environment, refusal
from tests.faults.victims import TRITON, command, one

pytestmark = pytest.mark.timeout(300)

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
NAMES = ("API_KEY", "ADMIN_TOKEN", "MODELSCOPE_API_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SECRETS = {name: f"secret-{name.lower()}-7Q" for name in NAMES}


def nobody_can_run_it() -> bool:
    """Whether this is root, and the project's environment lies where others can read it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    return (
        subprocess.run(
            [*AS_NOBODY, sys.executable, "-c", "import os, sys; os.stat(sys.argv[1])", sys.executable],
            cwd=ROOT,
            check=False,
        ).returncode
        == 0
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path | None) -> Iterator[Stack]:
    """The service with all its secrets, run by an ordinary user where this is root."""
    shared_model = shared_dir / "models/course-qa" if shared_dir else None
    model = shared_model or ROOT / "models/bundled__smollm2"
    ports, log = Ports.free(), tmp_path_factory.mktemp("doors") / "log"
    as_user = AS_NOBODY if nobody_can_run_it() else []
    env = environment(model, ports, USE_VLLM="echo", LOG_LEVEL="DEBUG", HOME="/dev/shm", TMPDIR="/dev/shm", **SECRETS)
    with log.open("wb") as output:
        service = subprocess.Popen(
            [*as_user, sys.executable, "-m", "runtime", "serve"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    stack = Stack(service, ports, log)
    try:
        stack.wait_ready()
        yield stack
    finally:
        assert stack.stop() == 0


@pytest.mark.parametrize(
    "knock",
    [
        lambda client: client.load_model("llm"),
        lambda client: client.unload_model("llm"),
        lambda client: client.get_model_repository_index(),
        lambda client: client.register_system_shared_memory("region", "/key", 16),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.get_trace_settings(),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"], "trace_file": "/tmp/trace"}),
        lambda client: client.get_log_settings(),
        lambda client: client.update_log_settings({"log_file": "/tmp/log"}),
    ],
)
def test_a_protocol_that_changes_or_shows_the_server_is_closed(
    guarded: Stack, knock: Callable[[triton.InferenceServerClient], object]
) -> None:
    with triton.InferenceServerClient(guarded.grpc_address) as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            knock(client)
        assert client.is_model_ready("llm")


def test_what_clients_and_benchmarks_ask_for_is_open(guarded: Stack) -> None:
    with triton.InferenceServerClient(guarded.grpc_address) as client:
        assert client.get_model_config("llm").config.name == "llm"
        assert client.get_inference_statistics("llm").model_stats
        assert client.get_model_metadata("llm").inputs


def test_triton_listens_on_loopback_only(guarded: Stack) -> None:
    arguments = command(one(guarded, TRITON))
    assert "--grpc-address=127.0.0.1" in arguments
    assert "--metrics-address=127.0.0.1" in arguments
    assert "--allow-http=false" in arguments


def test_secrets_are_in_no_answer_log_command_line_or_model_process(guarded: Stack) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    right = {"Authorization": f"Bearer {SECRETS['ADMIN_TOKEN']}"}
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        replies = [
            *(
                client.get(path, headers=wrong)
                for path in ("/v1/models", "/info", "/metrics", "/openapi.json", "/nowhere")
            ),
            client.put("/system_prompt", json={"system_prompt": "x"}, headers=wrong),
            client.put("/system_prompt", json={"system_prompt": 7}, headers=right),
            client.post(
                "/v1/completions", json={"prompt": 7}, headers={"Authorization": f"Bearer {SECRETS['API_KEY']}"}
            ),
            client.post("/predict", json={"prompt": ""}, headers=right),
        ]
    assert [reply.status_code for reply in replies] == [401, 200, 200, 200, 404, 401, 422, 400, 400]
    pids = {guarded.process.pid, *descendants(guarded.process.pid)}
    below_triton = {one(guarded, TRITON), *descendants(one(guarded, TRITON))}
    for secret in SECRETS.values():
        assert not [reply.url for reply in replies if secret in reply.text + str(reply.headers)]
        assert secret not in guarded.text()
        assert not [pid for pid in pids if secret in command(pid)]
        assert not [pid for pid in below_triton if secret.encode() in Path(f"/proc/{pid}/environ").read_bytes()]


def test_errors_show_no_traceback_no_path_and_none_of_tritons_texts(guarded: Stack) -> None:
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        bodies = [b"{", b"[]", b'{"prompt": 7}', b'{"prompt": "a", "top_p": 7}', b'{"prompt": "\xff"}']
        texts = [
            client.post("/predict", content=body, headers={"content-type": "application/json"}).text for body in bodies
        ]
    for text in texts:
        assert not [
            mark for mark in ("Traceback", "File ", "/site-packages", str(ROOT), "Stub process") if mark in text
        ]


def test_an_ordinary_user_runs_all_of_it(guarded: Stack) -> None:
    if os.geteuid() == 0 and not nobody_can_run_it():
        pytest.skip("others may not read the project's folder, or setpriv is missing")
    assert guarded.predict("a", max_new_tokens=2)
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in {guarded.process.pid, *descendants(guarded.process.pid)}}
    assert owners == {os.geteuid() or NOBODY}


def test_pickled_weights_are_refused(default_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in default_model.iterdir():
        if file.is_file() and not file.name.startswith("model.safetensors"):
            shutil.copyfile(file, folder / file.name)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (line,) = refusal(folder)
    assert "only pickled weights" in line
