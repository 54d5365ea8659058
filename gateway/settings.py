"""Settings of the gateway, read once from the environment. Standard library only: ``--check`` must start at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from gateway.environment import Environment, SettingsError

# The model's default too (a test compares them): its warm-up fills the prefix cache with it.
DEFAULT_SYSTEM_PROMPT = (
    "你是《大规模并行处理器程序设计》课程的答题助手。只输出答案正文：直接给出定义、关键术语和结论，用词与教材一致；"
    "不复述题目，不写思考过程、寒暄或举例。题目要求代码时，只给最短可用的核心代码。"
)
_DEFAULT_MODEL_ID = "bundled:smollm2"
_DEFAULT_STOP_STRINGS = ("<|im_end|>", "<|endoftext|>")
_MAX_PROMPTS = 1_000_000
_DAY_S = 86_400.0
_HOST_PORT = re.compile(r"(?:[^\s/:\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})")  # IPv6 in brackets
_URL = re.compile(r"https?://[^\s/]+(/\S*)?")

LogFormat = Literal["text", "json"]
OtlpProtocol = Literal["http/protobuf", "grpc"]


@dataclass(frozen=True)
class BudgetSettings:
    """How many new tokens a question may cost, by its kind. Keywords are added to the built-in ones."""

    max_new_tokens: int = 64
    max_new_tokens_code: int = 192
    max_new_tokens_code_soft: int = 96
    max_new_tokens_code_hard: int = 192
    hard_code_min_hits: int = 1
    long_answer_min_hits: int = 1
    long_answer_enable_default: bool = True
    """Whether the built-in list of long-answer keywords counts, not only the own one."""
    disable_token_routing: bool = False
    """Every question gets ``max_new_tokens``."""
    code_keywords: tuple[str, ...] = ()
    hard_code_keywords: tuple[str, ...] = ()
    long_answer_keywords: tuple[str, ...] = ()

    @staticmethod
    def from_env(env: Environment) -> BudgetSettings:
        return BudgetSettings(
            max_new_tokens=env.integer("MAX_NEW_TOKENS", 64, 1),
            max_new_tokens_code=env.integer("MAX_NEW_TOKENS_CODE", 192, 1),
            max_new_tokens_code_soft=env.integer("MAX_NEW_TOKENS_CODE_SOFT", 96, 1),
            max_new_tokens_code_hard=env.integer("MAX_NEW_TOKENS_CODE_HARD", 192, 1),
            hard_code_min_hits=env.integer("HARD_CODE_MIN_HITS", 1, 1),
            long_answer_min_hits=env.integer("LONG_ANSWER_MIN_HITS", 1, 1),
            long_answer_enable_default=env.flag("LONG_ANSWER_ENABLE_DEFAULT", True),
            disable_token_routing=env.flag("DISABLE_TOKEN_ROUTING", False),
            code_keywords=env.words("CODE_QUESTION_KEYWORDS"),
            hard_code_keywords=env.words("HARD_CODE_QUESTION_KEYWORDS"),
            long_answer_keywords=env.words("LONG_ANSWER_KEYWORDS"),
        )


@dataclass(frozen=True)
class SamplingSettings:
    """What a request that names nothing else is sampled with; names and meanings as in vLLM's ``SamplingParams``."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.05
    frequency_penalty: float = 0.1
    stop: tuple[str, ...] = _DEFAULT_STOP_STRINGS

    @staticmethod
    def from_env(env: Environment) -> SamplingSettings:
        stop = env.words("STOP_STRINGS", _DEFAULT_STOP_STRINGS)
        return SamplingSettings(
            temperature=env.number("TEMPERATURE", 0.0, 0.0, 2.0),
            top_p=env.number("TOP_P", 1.0, 0.0, 1.0, above_minimum=True),
            top_k=env.integer("TOP_K", 0, -1),
            repetition_penalty=env.number("REPETITION_PENALTY", 1.05, 0.0, 2.0, above_minimum=True),
            frequency_penalty=env.number("FREQUENCY_PENALTY", 0.1, -2.0, 2.0),
            stop=("\n\n", *stop) if env.flag("STOP_ON_DOUBLE_NEWLINE", False) else stop,
        )


@dataclass(frozen=True)
class AnswerSettings:
    """What is cut from answers to questions with the short budget. ``max_sentences`` 0: no limit."""

    trim_examples: bool = True
    max_sentences: int = 6

    @staticmethod
    def from_env(env: Environment) -> AnswerSettings:
        return AnswerSettings(
            trim_examples=env.flag("OUTPUT_TRIM_EXAMPLES", True),
            max_sentences=env.integer("OUTPUT_MAX_SENTENCES", 6, 0),
        )


@dataclass(frozen=True)
class Limits:
    """What the gateway takes on. Sizes in bytes or prompts, times in seconds."""

    max_queue: int = 16_384
    max_batch_prompts: int = 10_000
    max_body_bytes: int = 64 * 1024 * 1024
    request_timeout_s: float = 350.0
    ready_timeout_s: float = 170.0
    shutdown_grace_s: float = 30.0

    @staticmethod
    def from_env(env: Environment) -> Limits:
        return Limits(
            max_queue=env.integer("MAX_QUEUE", 16_384, 1, _MAX_PROMPTS),
            max_batch_prompts=env.integer("MAX_BATCH_PROMPTS", 10_000, 1, _MAX_PROMPTS),
            max_body_bytes=env.integer("MAX_BODY_BYTES", 64 * 1024 * 1024, 1),
            request_timeout_s=env.number("REQUEST_TIMEOUT_S", 350.0, 0.0, _DAY_S, above_minimum=True),
            ready_timeout_s=env.number("READY_TIMEOUT_S", 170.0, 0.0, _DAY_S),
            shutdown_grace_s=env.number("SHUTDOWN_GRACE_S", 30.0, 0.0, 3600.0),
        )


@dataclass(frozen=True)
class GatewaySettings:
    """Everything the gateway is told. ``api_key`` and ``admin_token`` are secrets and stay out of ``repr``."""

    port: int = 8000
    triton_urls: tuple[str, ...] = ("127.0.0.1:8001",)
    served_model_name: str = "smollm2"
    batch_mode: bool = False
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    log_format: LogFormat = "text"
    log_level: str = "INFO"
    api_key: str | None = field(default=None, repr=False)
    admin_token: str | None = field(default=None, repr=False)
    cors_allow_origins: tuple[str, ...] = ()
    """Sites whose pages may read answers; ``*``: all."""
    otlp_endpoint: str | None = None
    """Where traces go; unset: there are none."""
    otlp_protocol: OtlpProtocol = "http/protobuf"
    budget: BudgetSettings = BudgetSettings()
    sampling: SamplingSettings = SamplingSettings()
    answer: AnswerSettings = AnswerSettings()
    limits: Limits = Limits()

    @staticmethod
    def from_env(environ: Mapping[str, str]) -> GatewaySettings:
        """Read the environment. Raises :class:`SettingsError` at the first value that is not allowed."""
        env = Environment(environ)
        return GatewaySettings(
            port=env.integer("GATEWAY_PORT", 8000, 1, 65535),
            triton_urls=_triton_urls(env),
            served_model_name=_served_model_name(env),
            batch_mode=env.flag("BATCH_MODE", False),
            system_prompt=env.text("SYSTEM_PROMPT") or DEFAULT_SYSTEM_PROMPT,
            log_format=cast(LogFormat, env.choice("LOG_FORMAT", ("text", "json"), "text")),
            log_level=env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
            api_key=env.text("API_KEY"),
            admin_token=env.text("ADMIN_TOKEN"),
            cors_allow_origins=env.words("CORS_ALLOW_ORIGINS"),
            otlp_endpoint=_otlp_endpoint(env),
            otlp_protocol=cast(
                OtlpProtocol, env.choice("OTEL_EXPORTER_OTLP_PROTOCOL", ("http/protobuf", "grpc"), "http/protobuf")
            ),
            budget=BudgetSettings.from_env(env),
            sampling=SamplingSettings.from_env(env),
            answer=AnswerSettings.from_env(env),
            limits=Limits.from_env(env),
        )


def _triton_urls(env: Environment) -> tuple[str, ...]:
    """``TRITON_URL``: one or more ``host:port``; unset, the Triton of this machine at ``TRITON_GRPC_PORT``."""
    port = env.integer("TRITON_GRPC_PORT", 8001, 1, 65535)
    urls = tuple(dict.fromkeys(env.words("TRITON_URL", (f"127.0.0.1:{port}",))))
    for url in urls:
        match = _HOST_PORT.fullmatch(url)
        if match is None or not 1 <= int(match[1]) <= 65535:
            raise SettingsError("TRITON_URL", url, "host:port of Triton's gRPC, or several separated by commas")
    return urls


def _otlp_endpoint(env: Environment) -> str | None:
    endpoint = env.text("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint is not None and not _URL.fullmatch(endpoint):
        raise SettingsError("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "an http or https URL")
    return endpoint


def _served_model_name(env: Environment) -> str:
    """``SERVED_MODEL_NAME``, else the last part of ``MODEL_ID``, of ``MODEL_DIR``, or of the default model."""
    named = env.text("SERVED_MODEL_NAME")
    source = named or env.text("MODEL_ID") or env.text("MODEL_DIR") or _DEFAULT_MODEL_ID
    return named or source.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
