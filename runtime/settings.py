"""The part of the environment that decides where things are and how they are started. Read once, passed on."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.errors import BadSetting
from runtime.model_folder import DEFAULT_MODEL_ID, default_model_dir

PROJECT_ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"
_LOOPBACK_OF = {ANY_ADDRESS: LOOPBACK, "::": "::1"}

Switch = Literal["auto", "true", "false"]
UseVllm = Literal["auto", "true", "false", "echo"]
_YES = ("true", "1", "yes", "on")
_NO = ("false", "0", "no", "off")


@dataclass(frozen=True)
class RuntimeSettings:
    """What the launcher, the checks and the start of Triton need to know. Ports are TCP, times are seconds."""

    root: Path
    model_id: str | None
    """None: MODEL_DIR names a folder of one's own, which is served as it is."""
    model_dir: Path
    draft_dir: Path | None
    """The draft model's folder for speculative decoding, where one is named."""
    gateway_port: int
    triton_grpc_port: int
    triton_metrics_port: int
    triton_grpc_address: str | None
    """None: loopback with the embedded Triton, every address with a container's own."""
    triton_metrics_address: str
    triton_server_dir: Path | None
    """Set: the folder with ``bin/tritonserver`` and ``backends``; nothing else is looked at."""
    gateway_python: Path | None
    """The interpreter of gateway and watchdog, where they have an environment of their own; None: the launcher's."""
    triton_runtime_dir: Path
    """Where the embedded Triton is assembled."""
    use_vllm: UseVllm
    shutdown_grace_s: float
    watchdog_interval_s: float
    """Between two looks at a model that answers; 0: there is no watchdog."""
    watchdog_probe_s: float
    """How long one token may take before the model is asked what it does."""
    watchdog_stall_s: float
    """How long no engine may make a step while a probe waits."""
    triton_max_restarts: int
    """As many ends of Triton are put up with within the window; one more, and the service is given up."""
    triton_restart_window_s: float
    nvidia_mps: Switch
    """Whether supervisord starts NVIDIA's MPS daemon too, for the engines of a GPU to compute at the same moment.

    ``auto``, the default: where there can be one, and only for engines that share a GPU.
    """
    web_page: bool
    """Whether supervisord starts the web page too; it reads the next two itself."""
    web_page_address: str
    web_page_port: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str], root: Path = PROJECT_ROOT) -> RuntimeSettings:
        """Read the variables, blank ones as unset.

        Raises:
            BadSetting: naming the variable, its value and what is allowed.
        """
        server_dir = _text(environ, "TRITON_SERVER_DIR")
        model_id, model_dir = _model(environ, root)
        return cls(
            root=root,
            model_id=model_id,
            model_dir=model_dir,
            draft_dir=_draft_dir(environ, root),
            gateway_port=_port(environ, "GATEWAY_PORT", 8000),
            triton_grpc_port=_port(environ, "TRITON_GRPC_PORT", 8001),
            triton_metrics_port=_port(environ, "TRITON_METRICS_PORT", 8002),
            triton_grpc_address=_address(environ, "TRITON_GRPC_ADDRESS"),
            triton_metrics_address=_address(environ, "TRITON_METRICS_ADDRESS") or LOOPBACK,
            triton_server_dir=Path(server_dir).absolute() if server_dir else None,
            gateway_python=gateway_python(environ),
            triton_runtime_dir=Path(_text(environ, "TRITON_RUNTIME_DIR") or root / ".triton").absolute(),
            use_vllm=_use_vllm(environ),
            shutdown_grace_s=_seconds(environ, "SHUTDOWN_GRACE_S", 30.0),
            watchdog_interval_s=_seconds(environ, "WATCHDOG_INTERVAL_S", 5.0),
            watchdog_probe_s=_seconds(environ, "WATCHDOG_PROBE_S", 30.0, zero=False),
            watchdog_stall_s=_seconds(environ, "WATCHDOG_STALL_S", 120.0, zero=False),
            triton_max_restarts=_count(environ, "TRITON_MAX_RESTARTS", 5),
            triton_restart_window_s=_seconds(environ, "TRITON_RESTART_WINDOW_S", 1800.0, zero=False),
            nvidia_mps=_switch(environ, "NVIDIA_MPS", "0, 1 or auto"),
            web_page=_flag(environ, "WEBUI"),
            web_page_address=_address(environ, "WEBUI_ADDRESS") or LOOPBACK,
            web_page_port=_port(environ, "WEBUI_PORT", 7860),
        )

    @property
    def model_repository(self) -> Path:
        """Triton's model repository with the model ``llm``."""
        return self.root / "model_repository"

    def model_variables(self) -> dict[str, str]:
        """What the programs are told about the model: always a folder, and its id where it has one."""
        variables = {"MODEL_DIR": str(self.model_dir)}
        if self.model_id:
            variables["MODEL_ID"] = self.model_id
        if self.draft_dir:
            variables["SPEC_DRAFT_MODEL_DIR"] = str(self.draft_dir)
        return variables

    def grpc_address(self, embedded: bool) -> str:
        """Where Triton's gRPC listens: an embedded Triton has known holes, so nobody outside may talk to it unasked."""
        return self.triton_grpc_address or (LOOPBACK if embedded else ANY_ADDRESS)

    @property
    def grpc_target(self) -> tuple[str, int]:
        """Where this machine reaches Triton's gRPC, whichever Triton it is."""
        return reached_at(self.triton_grpc_address or LOOPBACK), self.triton_grpc_port


def reached_at(address: str) -> str:
    """Where this machine reaches a server that listens there."""
    return _LOOPBACK_OF.get(address, address)


def gateway_python(environ: Mapping[str, str]) -> Path | None:
    """The interpreter of GATEWAY_PYTHON, or None. Not resolved: a virtual environment's is a link to another."""
    named = _text(environ, "GATEWAY_PYTHON")
    return Path(named).expanduser().absolute() if named else None


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _model(environ: Mapping[str, str], root: Path) -> tuple[str | None, Path]:
    model_id, folder = _text(environ, "MODEL_ID"), _text(environ, "MODEL_DIR")
    if folder:
        return model_id, Path(folder).expanduser().absolute()
    model_id = model_id or DEFAULT_MODEL_ID
    return model_id, default_model_dir(model_id, root).absolute()


def _draft_dir(environ: Mapping[str, str], root: Path) -> Path | None:
    model_id, folder = _text(environ, "SPEC_DRAFT_MODEL_ID"), _text(environ, "SPEC_DRAFT_MODEL_DIR")
    if folder:
        return Path(folder).expanduser().absolute()
    return default_model_dir(model_id, root).absolute() if model_id else None


def _address(environ: Mapping[str, str], name: str) -> str | None:
    text = _text(environ, name)
    if text is None:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadSetting(name, text, "an IP address") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise BadSetting(name, text, "a TCP port, 1 to 65535")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, zero: bool = True) -> float:
    text = _text(environ, name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600 or (seconds == 0 and not zero):  # also refuses nan
        raise BadSetting(name, text, "seconds, 0 to 3600" if zero else "seconds, above 0, up to 3600")
    return seconds


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = _text(environ, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and int(text) <= 1_000_000):
        raise BadSetting(name, text, "a whole number, 0 to 1000000")
    return int(text)


def _flag(environ: Mapping[str, str], name: str) -> bool:
    """Off where it is not set."""
    text = _text(environ, name) or _NO[0]
    if text.lower() not in _YES + _NO:
        raise BadSetting(name, text, "0 or 1")
    return text.lower() in _YES


def _switch(environ: Mapping[str, str], name: str, allowed: str) -> Switch:
    """``auto`` where it is not set."""
    text = (_text(environ, name) or "auto").lower()
    if text == "auto":
        return "auto"
    if text in _YES:
        return "true"
    if text in _NO:
        return "false"
    raise BadSetting(name, text, allowed)


def _use_vllm(environ: Mapping[str, str]) -> UseVllm:
    if (_text(environ, "USE_VLLM") or "").lower() == "echo":  # answers with the prompt itself, for development
        return "echo"
    return _switch(environ, "USE_VLLM", "auto, true or false")
