"""Which backend serves the model, and why."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineRefused, StartupError
from ..logs import logger
from ..settings import ModelSettings
from ..tokenization import Tokenization, model_max_length
from .cpu_limit import usable_cpus
from .gpus import Gpu, visible_gpus
from .liveness import HangRule
from .mps import OFFER, PIPES, mps_works
from .plan import Facts, Plan, make_plan
from .pool import EnginePool
from .vllm_options import Device, expected_device, installed_release, installed_version, prepare_environment
from .weights import planned_bytes
from .worker_engine import WorkerEngine, WorkerSpec, WrongDevice
from .worker_factories import ECHO, VLLM


@dataclass(frozen=True)
class Backend:
    """A chosen backend. ``reason`` is empty for the first choice, else why it was not taken.

    ``instead`` gives the backend to take when this one's engines refuse to start, from what they refused with.
    """

    name: str
    version: str
    reason: str
    pool: EnginePool
    tokenization: Tokenization
    max_model_len: int
    instead: Callable[[EngineRefused], Backend] | None = None

    def fitted(self) -> Backend:
        """This backend with the context that its started engines really have."""
        lengths = [status.max_model_len for status in self.pool.status() if status.max_model_len]
        return dataclasses.replace(self, max_model_len=min([self.max_model_len, *lengths]))


def select_backend(settings: ModelSettings) -> Backend:
    """Choose vLLM where it may serve the model, else transformers. Raises :class:`StartupError`.

    A broken model folder is no reason to fall back: it raises here or when the engines start.
    """
    _require_model_folder(settings.model_dir)
    prepare_environment(settings)
    tokenization = Tokenization.load(settings.model_dir, settings.trust_remote_code)
    max_model_len = settings.max_model_len or model_max_length(settings.model_dir, settings.max_model_len_cap)
    if settings.use_vllm == "echo":
        return _echo(settings, tokenization, max_model_len)
    if settings.use_vllm == "false":
        return _fall_back(settings, tokenization, max_model_len, "USE_VLLM=false")
    if importlib.util.find_spec("vllm") is None:
        return _fall_back(settings, tokenization, max_model_len, "vLLM is not installed")
    gpus = visible_gpus(os.environ, uncounted=settings.tensor_parallel_size)
    return _vllm(settings, tokenization, max_model_len, expected_device(bool(gpus)), gpus)


async def start_backend(backend: Backend) -> Backend:
    """Start the engines, those of another backend if these refuse; return what is running. Raises StartupError."""
    refusal = await _start(backend)
    while refusal is not None:
        if backend.instead is None:
            raise refusal
        backend = backend.instead(refusal)
        refusal = await _start(backend)
    return backend


async def _start(backend: Backend) -> EngineRefused | None:
    try:
        await backend.pool.start()
    except EngineRefused as exc:
        return exc
    return None


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


def _fall_back(settings: ModelSettings, tokenization: Tokenization, max_model_len: int, reason: str) -> Backend:
    if settings.force_vllm:
        raise StartupError(f"FORCE_VLLM is set, but {reason}")
    if settings.lora_modules:
        raise StartupError(f"LORA_MODULES needs vLLM, and transformers would serve, because {reason}")
    logger.warning("serving with transformers, because %s", reason)
    return _transformers(settings, tokenization, max_model_len, reason)


def _vllm(
    settings: ModelSettings, tokenization: Tokenization, max_model_len: int, device: Device, gpus: Sequence[Gpu]
) -> Backend:
    """vLLM's engines, each in a process of its own; this process does not import it."""
    cores = sorted(os.sched_getaffinity(0))
    weights = planned_bytes(settings)
    facts = Facts(device, gpus, weights, installed_release(), cores, os.environ, memory_nodes(cores), usable_cpus())
    pool = worker_pool(settings, working_plan(settings, facts), VLLM, max_model_len)

    def instead(refusal: EngineRefused) -> Backend:
        if isinstance(refusal, WrongDevice) and refusal.device != device:
            logger.warning("planned for a %s, but this vLLM computes on a %s", device, refusal.device)
            return _vllm(settings, tokenization, max_model_len, refusal.device, [])
        return _fall_back(settings, tokenization, max_model_len, str(refusal))

    return Backend("vllm", installed_version(), "", pool, tokenization, max_model_len, instead)


def working_plan(settings: ModelSettings, facts: Facts) -> Plan:
    """The plan, through NVIDIA's MPS only if that works here."""
    plan = make_plan(settings, facts)
    given = plan.engines[0].environ
    if PIPES in given and not mps_works({**facts.environ, **given}):
        without = {name: value for name, value in facts.environ.items() if name != OFFER}
        plan = make_plan(settings, dataclasses.replace(facts, environ=without))
    return plan


def worker_pool(settings: ModelSettings, plan: Plan, factory: str, max_model_len: int) -> EnginePool:
    """The planned engines in worker processes."""
    hang = HangRule(settings.engine_hang_s)
    engines = [
        WorkerEngine(
            WorkerSpec(
                name=planned.name,
                settings=settings,
                max_model_len=max_model_len,
                factory=factory,
                options=dict(planned.options),
                environ=planned.environ,
                gpu=planned.gpu,
                device=plan.device,
            ),
            hang,
        )
        for planned in plan.engines
    ]
    return EnginePool(engines, plan.side_by_side)


def memory_nodes(cores: Sequence[int], nodes: Path = Path("/sys/devices/system/node")) -> int:
    """To how many parts of the memory (NUMA) these cores belong; 1 where nothing tells it."""
    near = [node for node in nodes.glob("node[0-9]*") if any((node / f"cpu{core}").exists() for core in cores)]
    return max(1, len(near))


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
    """In this process; with a number of engines asked for, in processes of their own as vLLM's."""
    from .echo import InstantEchoEngine, decoder

    if settings.engines_per_gpu is not None:
        facts = Facts("cpu", (), 0, (), ())
        pool = worker_pool(settings, make_plan(settings, facts, "echo"), ECHO, max_model_len)
    else:
        pool = EnginePool([InstantEchoEngine("echo-0", decoder(tokenization))])
    return Backend("echo", "1", "USE_VLLM=echo", pool, tokenization, max_model_len)
