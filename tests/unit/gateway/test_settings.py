"""Settings: every variable with its default, blank is unset, a bad value stops the start with one line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.environment import SettingsError
from gateway.settings import DEFAULT_SYSTEM_PROMPT, GatewaySettings
from llm_model import settings as model_settings

ROOT = Path(__file__).resolve().parents[3]


def test_defaults_are_those_of_the_dataclasses() -> None:
    assert GatewaySettings.from_env({}) == GatewaySettings()


def test_defaults_of_a_plain_start() -> None:
    settings = GatewaySettings.from_env({})
    assert settings.port == 8000
    assert settings.triton_urls == ("127.0.0.1:8001",)
    assert not settings.batch_mode
    budget, sampling, limits = settings.budget, settings.sampling, settings.limits
    assert (budget.max_new_tokens, budget.max_new_tokens_code_soft) == (64, 96)
    assert (budget.max_new_tokens_code, budget.max_new_tokens_code_hard) == (192, 192)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.0, 1.0, 0)
    assert (sampling.repetition_penalty, sampling.frequency_penalty) == (1.05, 0.1)
    assert sampling.stop == ("<|im_end|>", "<|endoftext|>")
    assert (settings.answer.trim_examples, settings.answer.max_sentences) == (True, 6)
    assert (limits.max_queue, limits.max_batch_prompts, limits.max_body_bytes) == (16384, 10000, 64 * 2**20)
    assert (limits.request_timeout_s, limits.ready_timeout_s, limits.shutdown_grace_s) == (350, 170, 30)


def test_every_variable_reaches_its_field() -> None:
    settings = GatewaySettings.from_env(
        {
            "GATEWAY_PORT": "8100",
            "TRITON_URL": "one:1, [::1]:2 ,one:1",
            "BATCH_MODE": "1",
            "SERVED_MODEL_NAME": "course",
            "SYSTEM_PROMPT": "答题",
            "LOG_FORMAT": "JSON",
            "LOG_LEVEL": "debug",
            "API_KEY": "key",
            "ADMIN_TOKEN": "token",
            "MAX_NEW_TOKENS": "1",
            "MAX_NEW_TOKENS_CODE": "2",
            "MAX_NEW_TOKENS_CODE_SOFT": "3",
            "MAX_NEW_TOKENS_CODE_HARD": "4",
            "HARD_CODE_MIN_HITS": "2",
            "LONG_ANSWER_MIN_HITS": "3",
            "LONG_ANSWER_ENABLE_DEFAULT": "no",
            "DISABLE_TOKEN_ROUTING": "yes",
            "CODE_QUESTION_KEYWORDS": "编写, 函数 ,",
            "HARD_CODE_QUESTION_KEYWORDS": "__global__",
            "LONG_ANSWER_KEYWORDS": "卷积",
            "TEMPERATURE": "0.5",
            "TOP_P": "0.9",
            "TOP_K": "-1",
            "REPETITION_PENALTY": "1",
            "FREQUENCY_PENALTY": "-2",
            "STOP_STRINGS": "A,B",
            "STOP_ON_DOUBLE_NEWLINE": "1",
            "OUTPUT_TRIM_EXAMPLES": "0",
            "OUTPUT_MAX_SENTENCES": "0",
            "MAX_QUEUE": "5",
            "MAX_BATCH_PROMPTS": "6",
            "MAX_BODY_BYTES": "7",
            "REQUEST_TIMEOUT_S": "8.5",
            "READY_TIMEOUT_S": "0",
            "SHUTDOWN_GRACE_S": "0",
            "CORS_ALLOW_ORIGINS": "https://a.example, https://b.example",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "GRPC",
        }
    )
    assert dataclasses.asdict(settings) == {
        "port": 8100,
        "triton_urls": ("one:1", "[::1]:2"),
        "served_model_name": "course",
        "batch_mode": True,
        "system_prompt": "答题",
        "log_format": "json",
        "log_level": "DEBUG",
        "api_key": "key",
        "admin_token": "token",
        "cors_allow_origins": ("https://a.example", "https://b.example"),
        "otlp_endpoint": "http://collector:4318",
        "otlp_protocol": "grpc",
        "budget": {
            "max_new_tokens": 1,
            "max_new_tokens_code": 2,
            "max_new_tokens_code_soft": 3,
            "max_new_tokens_code_hard": 4,
            "hard_code_min_hits": 2,
            "long_answer_min_hits": 3,
            "long_answer_enable_default": False,
            "disable_token_routing": True,
            "code_keywords": ("编写", "函数"),
            "hard_code_keywords": ("__global__",),
            "long_answer_keywords": ("卷积",),
        },
        "sampling": {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "frequency_penalty": -2.0,
            "stop": ("\n\n", "A", "B"),
        },
        "answer": {"trim_examples": False, "max_sentences": 0},
        "limits": {
            "max_queue": 5,
            "max_batch_prompts": 6,
            "max_body_bytes": 7,
            "request_timeout_s": 8.5,
            "ready_timeout_s": 0.0,
            "shutdown_grace_s": 0.0,
        },
    }


class AskedFor(dict[str, str]):
    """A blank environment that notes which variables are read."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return " \t"


def test_blank_means_unset_for_every_variable() -> None:
    environ = AskedFor()
    assert GatewaySettings.from_env(environ) == GatewaySettings()
    assert len(environ.names) > 30


@pytest.mark.parametrize(
    "variable,value,allowed",
    [
        ("GATEWAY_PORT", "0", "1 to 65535"),
        ("GATEWAY_PORT", "eighty", "1 to 65535"),
        ("TRITON_GRPC_PORT", "65536", "1 to 65535"),
        ("TRITON_URL", "http://host:8001", "host:port"),
        ("TRITON_URL", "host", "host:port"),
        ("TRITON_URL", ":8001", "host:port"),
        ("TRITON_URL", "host:99999", "host:port"),
        ("TRITON_URL", "::1:8001", "host:port"),
        ("TRITON_URL", "[]:8001", "host:port"),
        ("TRITON_URL", "[::1]", "host:port"),
        ("TRITON_URL", f"host:{'1' * 5000}", "host:port"),
        ("BATCH_MODE", "maybe", "0 or 1"),
        ("LOG_FORMAT", "xml", "text, json"),
        ("LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR"),
        ("MAX_NEW_TOKENS", "0", "from 1"),
        ("MAX_NEW_TOKENS_CODE", "1.5", "from 1"),
        ("HARD_CODE_MIN_HITS", "0", "from 1"),
        ("TEMPERATURE", "-0.1", "from 0 to 2"),
        ("TEMPERATURE", "nan", "from 0 to 2"),
        ("TEMPERATURE", "hot", "from 0 to 2"),
        ("TOP_P", "0", "above 0 to 1"),
        ("TOP_P", "1.1", "above 0 to 1"),
        ("TOP_K", "-2", "from -1"),
        ("REPETITION_PENALTY", "0", "above 0 to 2"),
        ("FREQUENCY_PENALTY", "2.5", "from -2 to 2"),
        ("OUTPUT_MAX_SENTENCES", "-1", "from 0"),
        ("MAX_QUEUE", "0", "from 1"),
        ("MAX_BODY_BYTES", "64M", "from 1"),
        ("REQUEST_TIMEOUT_S", "0", "above 0"),
        ("READY_TIMEOUT_S", "inf", "from 0"),
        ("SHUTDOWN_GRACE_S", "-1", "from 0"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "an http or https URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf, grpc"),
    ],
)
def test_a_bad_value_is_one_line_with_variable_value_and_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.from_env({variable: value})
    line = str(caught.value)
    assert line.startswith(f"{variable}={value}: ")
    assert allowed in line
    assert "\n" not in line


def test_a_value_of_two_lines_is_told_in_one() -> None:
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.from_env({"MAX_QUEUE": "5\n6"})
    assert str(caught.value) == "MAX_QUEUE=5 6: a whole number from 1 to 1000000"


def test_triton_port_is_used_without_a_url() -> None:
    assert GatewaySettings.from_env({"TRITON_GRPC_PORT": "9001"}).triton_urls == ("127.0.0.1:9001",)


def test_secrets_do_not_show() -> None:
    assert "hush" not in repr(GatewaySettings.from_env({"API_KEY": "hush-1", "ADMIN_TOKEN": "hush-2"}))


def test_the_model_warms_up_with_the_same_system_prompt() -> None:
    assert model_settings.DEFAULT_SYSTEM_PROMPT == DEFAULT_SYSTEM_PROMPT


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MODEL_ID": "modelscope:Owner/Model-1.5"},
        {"MODEL_DIR": "/models/course-qa/"},
        {"SERVED_MODEL_NAME": "a/b", "MODEL_ID": "x"},
    ],
)
def test_both_processes_call_the_model_by_the_same_name(environ: dict[str, str]) -> None:
    expected = model_settings.served_name(model_settings.Environment(environ))
    assert GatewaySettings.from_env(environ).served_model_name == expected


def _check(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "--check"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_check_accepts_a_good_environment() -> None:
    done = _check({"GATEWAY_PORT": "8000"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_check_prints_one_line_for_a_bad_one() -> None:
    done = _check({"MAX_QUEUE": "many"})
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["MAX_QUEUE=many: a whole number from 1 to 1000000"]
