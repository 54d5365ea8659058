"""What runs inside a worker: each function makes one kind of engine and says what it computes on."""

from __future__ import annotations

from ..errors import EngineRefused, first_line
from ..tokenization import Tokenization
from .base import Engine
from .vllm_options import Device, engine_options
from .worker_wire import Setup

VLLM = ".worker_factories:vllm"
ECHO = ".worker_factories:echo"


def vllm(setup: Setup) -> tuple[Engine, Device]:
    """vLLM. Raises :class:`EngineRefused` where it cannot be imported or cannot serve the model."""
    try:
        from . import vllm_engine
    except Exception as exc:  # a vLLM or torch that does not fit the machine fails with any error
        raise EngineRefused(f"vLLM cannot be imported: {first_line(exc)}") from exc
    reason, device = vllm_engine.unsupported_reason(setup.settings.model_dir), vllm_engine.device()
    if reason is not None or device is None:
        raise EngineRefused(reason or "vLLM finds no device")
    user_options = dict(setup.settings.engine_args)
    options = engine_options(setup.settings, device, setup.max_model_len) | setup.options | user_options
    return vllm_engine.VllmEngine(setup.name, options, user_options), device


def echo(setup: Setup) -> tuple[Engine, Device]:
    """The engine without a model, in a process like any other's."""
    from .echo import EchoEngine, decoder

    tokenization = Tokenization.load(setup.settings.model_dir, setup.settings.trust_remote_code)
    return EchoEngine(setup.name, decoder(tokenization)), "cpu"
