from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.ipv6 import needs_ipv6
from webui.__main__ import listen
from webui.settings import SettingsError, WebSettings


def test_defaults_and_blank_is_unset() -> None:
    assert WebSettings.from_env({"WEBUI_PORT": " ", "API_KEY": " "}) == WebSettings()
    assert WebSettings().address == "127.0.0.1"
    assert WebSettings.from_env({"GATEWAY_PORT": "9000"}).gateway_url == "http://127.0.0.1:9000"
    assert WebSettings.from_env({"WEBUI_GATEWAY_URL": "https://there/"}).gateway_url == "https://there"
    assert "secret" not in repr(WebSettings.from_env({"API_KEY": "secret"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("WEBUI_PORT", "0"), ("WEBUI_PORT", "x"), ("WEBUI_ADDRESS", "all"), ("WEBUI_GATEWAY_URL", "there:8000")],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}={value}: "):
        WebSettings.from_env({name: value})


def test_a_value_of_two_lines_is_told_in_one() -> None:
    with pytest.raises(SettingsError) as caught:
        WebSettings.from_env({"WEBUI_PORT": "78\n60"})
    assert str(caught.value) == "WEBUI_PORT=78 60: a TCP port, 1 to 65535"


@pytest.mark.parametrize("address", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_it_listens_at_an_address_of_either_kind(address: str) -> None:
    with listen(WebSettings(address=address, port=0)) as listener:
        assert listener.getsockname()[0] == address


def test_the_check_needs_no_packages_and_says_what_is_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "webui", "--check"],  # -S: without any installed package
        cwd=ROOT,
        env={"WEBUI_PORT": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "WEBUI_PORT=none: a TCP port, 1 to 65535\n"


def test_the_page_imports_neither_torch_nor_other_rooms() -> None:
    forbidden = ("torch", "vllm", "transformers", "tritonclient", "gateway", "runtime", "llm_model")
    for source in sorted((ROOT / "webui").rglob("*.py")):
        for line in source.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].partition(".")[0] not in forbidden, f"{source}: {line}"
