from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import BadSetting
from runtime.settings import RuntimeSettings

ROOT = Path("/project")


def settings(**environ: str) -> RuntimeSettings:
    return RuntimeSettings.from_env(environ, ROOT)


def test_defaults() -> None:
    found = settings()
    assert (found.gateway_port, found.triton_grpc_port, found.triton_metrics_port) == (8000, 8001, 8002)
    assert found.shutdown_grace_s == 30
    assert found.use_vllm == "auto"
    assert found.triton_metrics_address == "127.0.0.1"
    assert found.triton_server_dir is None
    assert found.triton_runtime_dir == ROOT / ".triton"
    assert found.model_repository == ROOT / "model_repository"


def test_blank_is_unset() -> None:
    names = (
        "GATEWAY_PORT",
        "TRITON_GRPC_PORT",
        "TRITON_METRICS_PORT",
        "TRITON_GRPC_ADDRESS",
        "TRITON_METRICS_ADDRESS",
        "TRITON_SERVER_DIR",
        "TRITON_RUNTIME_DIR",
        "MODEL_ID",
        "MODEL_DIR",
        "USE_VLLM",
        "SHUTDOWN_GRACE_S",
        "WATCHDOG_INTERVAL_S",
        "WATCHDOG_PROBE_S",
        "WATCHDOG_STALL_S",
        "TRITON_MAX_RESTARTS",
        "TRITON_RESTART_WINDOW_S",
        "NVIDIA_MPS",
        "WEBUI",
        "WEBUI_ADDRESS",
        "WEBUI_PORT",
    )
    assert settings(**dict.fromkeys(names, "  ")) == settings()


@pytest.mark.parametrize(
    "environ,model_id,model_dir",
    [
        ({}, "bundled:smollm2", "/project/models/bundled__smollm2"),
        ({"MODEL_ID": "Some/Model-0.5B"}, "Some/Model-0.5B", "/project/models/Some__Model-0.5B"),
        ({"MODEL_DIR": "/mine"}, None, "/mine"),
        ({"MODEL_ID": "Some/Model-0.5B", "MODEL_DIR": "/mine"}, "Some/Model-0.5B", "/mine"),
    ],
)
def test_the_model_and_its_folder(environ: dict[str, str], model_id: str | None, model_dir: str) -> None:
    found = settings(**environ)
    assert (found.model_id, found.model_dir) == (model_id, Path(model_dir))
    told = found.model_variables()
    assert told["MODEL_DIR"] == model_dir
    assert told.get("MODEL_ID") == model_id


def test_a_relative_model_folder_is_where_the_caller_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings(MODEL_DIR="here").model_dir == tmp_path / "here"


def test_grpc_is_closed_to_others_with_the_embedded_triton_unless_asked_for() -> None:
    assert settings().grpc_address(embedded=True) == "127.0.0.1"
    assert settings().grpc_address(embedded=False) == "0.0.0.0"
    assert settings(TRITON_GRPC_ADDRESS="10.0.0.1").grpc_address(embedded=True) == "10.0.0.1"


@pytest.mark.parametrize(
    "address,host",
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.1", "10.0.0.1"), ("0::1", "::1")],
)
def test_this_machine_reaches_triton_where_it_listens(address: str, host: str) -> None:
    assert settings(TRITON_GRPC_ADDRESS=address, TRITON_GRPC_PORT="9001").grpc_target == (host, 9001)


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.1", "::", "::1", "fe80::1%eth0"])
def test_an_address_may_be_of_either_kind(address: str) -> None:
    found = settings(TRITON_GRPC_ADDRESS=address, TRITON_METRICS_ADDRESS=address, WEBUI_ADDRESS=address)
    assert {found.triton_grpc_address, found.triton_metrics_address, found.web_page_address} == {address}


@pytest.mark.parametrize("text,meaning", [("AUTO", "auto"), ("1", "true"), ("True", "true"), ("no", "false")])
def test_use_vllm(text: str, meaning: str) -> None:
    assert settings(USE_VLLM=text).use_vllm == meaning


@pytest.mark.parametrize(
    "name,value",
    [
        ("GATEWAY_PORT", "0"),
        ("GATEWAY_PORT", "65536"),
        ("TRITON_GRPC_PORT", "http"),
        ("TRITON_METRICS_PORT", "80.5"),
        ("TRITON_METRICS_PORT", "８００２"),
        ("TRITON_GRPC_ADDRESS", "localhost"),
        ("TRITON_METRICS_ADDRESS", "everywhere"),
        ("WEBUI_ADDRESS", "127.0.0.1:7860"),
        ("SHUTDOWN_GRACE_S", "-1"),
        ("SHUTDOWN_GRACE_S", "nan"),
        ("SHUTDOWN_GRACE_S", "inf"),
        ("SHUTDOWN_GRACE_S", "soon"),
        ("WATCHDOG_INTERVAL_S", "-1"),
        ("WATCHDOG_PROBE_S", "0"),
        ("WATCHDOG_STALL_S", "0"),
        ("TRITON_MAX_RESTARTS", "1.5"),
        ("TRITON_RESTART_WINDOW_S", "3601"),
        ("USE_VLLM", "perhaps"),
    ],
)
def test_a_bad_value_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(BadSetting) as caught:
        settings(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}={value}: ")
    assert "\n" not in message


def test_a_value_of_two_lines_is_told_in_one() -> None:
    with pytest.raises(BadSetting) as caught:
        settings(SHUTDOWN_GRACE_S="3\n0")
    assert str(caught.value) == "SHUTDOWN_GRACE_S=3 0: seconds, 0 to 3600"


def test_a_draft_model_has_a_folder_too() -> None:
    assert "SPEC_DRAFT_MODEL_DIR" not in settings().model_variables()
    named = settings(SPEC_DRAFT_MODEL_ID="owner/name").model_variables()
    assert named["SPEC_DRAFT_MODEL_DIR"] == str(ROOT / "models" / "owner__name")
    given = settings(SPEC_DRAFT_MODEL_ID="owner/name", SPEC_DRAFT_MODEL_DIR="/draft")
    assert given.model_variables()["SPEC_DRAFT_MODEL_DIR"] == "/draft"
