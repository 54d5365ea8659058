"""Which backend serves the model, and why."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import StartupError
from ..logs import logger
from ..settings import ModelSettings
from ..tokenization import Tokenization, model_max_length
from .base import Engine
from .pool import EnginePool
from .vllm_options import engine_options, prepare_environment


@dataclass(frozen=True)
class Backend:
    """A chosen backend. ``reason`` is empty for the first choice, else why it was not taken."""

    name: str
    version: str
    reason: str
    pool: EnginePool
    tokenization: Tokenization
    max_model_len: int

    def fitted(self) -> Backend:
        """This backend with the context that its started engines really have."""
        lengths = [status.max_model_len for status in self.pool.status() if status.max_model_len]
        return dataclasses.replace(self, max_model_len=min([self.max_model_len, *lengths]))


def select_backend(settings: ModelSettings) -> Backend:
    """Choose vLLM where it can serve the model, else transformers. Raises :class:`StartupError`.

    A broken model folder is no reason to fall back: it raises here or when the engines start.
    """
    _require_model_folder(settings.model_dir)
    prepare_environment(settings)
    tokenization = Tokenization.load(settings.model_dir, settings.trust_remote_code)
    max_model_len = settings.max_model_len or model_max_length(settings.model_dir, settings.max_model_len_cap)
    if settings.use_vllm == "echo":
        return _echo(settings, tokenization, max_model_len)
    reason = _reason_against_vllm(settings)
    if reason is None:
        return _vllm(settings, tokenization, max_model_len)
    if settings.force_vllm:
        raise StartupError(f"FORCE_VLLM is set, but {reason}")
    if settings.lora_modules:
        raise StartupError(f"LORA_MODULES needs vLLM, and transformers would serve, because {reason}")
    logger.warning("serving with transformers, because %s", reason)
    return _transformers(settings, tokenization, max_model_len, reason)


def _require_model_folder(model_dir: str) -> None:
    if not model_dir:
        raise StartupError("MODEL_DIR is not set: it names the folder with the model's weights and tokenizer")
    try:
        config = json.loads(Path(model_dir, "config.json").read_text(encoding="utf-8"))
    except OSError as exc:
        raise StartupError(f"{model_dir}/config.json cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise StartupError(f"{model_dir}/config.json is not valid JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise StartupError(f"{model_dir}/config.json is not a JSON object")


def _reason_against_vllm(settings: ModelSettings) -> str | None:
    if settings.use_vllm == "false":
        return "USE_VLLM=false"
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    try:
        from . import vllm_engine
    except Exception as exc:  # noqa: BLE001 - a vLLM or torch that does not fit the machine fails with any error
        return f"vLLM cannot be imported: {(str(exc).strip() or type(exc).__name__).splitlines()[0]}"
    return vllm_engine.unsupported_reason(settings.model_dir)


def _vllm(settings: ModelSettings, tokenization: Tokenization, max_model_len: int) -> Backend:
    from . import vllm_engine

    device = vllm_engine.device()
    assert device is not None  # unsupported_reason has asked
    options = engine_options(settings, device, max_model_len)
    user_options = dict(settings.engine_args)
    count = settings.engines_per_gpu or 1
    engines: list[Engine] = [vllm_engine.VllmEngine(f"vllm-{i}", options, user_options) for i in range(count)]
    return Backend("vllm", vllm_engine.VERSION, "", EnginePool(engines), tokenization, max_model_len)


def _transformers(settings: ModelSettings, tokenization: Tokenization, max_model_len: int, reason: str) -> Backend:
    import transformers

    from .transformers_engine import TransformersConfig, TransformersEngine

    config = TransformersConfig(
        model_dir=settings.model_dir,
        dtype=settings.transformers_dtype,
        max_model_len=max_model_len,
        trust_remote_code=settings.trust_remote_code,
        device="auto",
    )
    pool = EnginePool([TransformersEngine("transformers-0", config)])
    version = transformers.__version__
    return Backend("transformers", version, reason, pool, tokenization, max_model_len)


def _echo(settings: ModelSettings, tokenization: Tokenization, max_model_len: int) -> Backend:
    from .echo import EchoEngine

    def decode(token_ids: list[int], skip_special_tokens: bool) -> str:
        return tokenization.decode([token_ids], skip_special_tokens=skip_special_tokens)[0]

    pool = EnginePool([EchoEngine("echo-0", decode)])
    return Backend("echo", "1", "USE_VLLM=echo", pool, tokenization, max_model_len)
