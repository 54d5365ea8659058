"""How Triton is started: its environment, its arguments, and the exec."""

from __future__ import annotations

import math
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from runtime.devices import gpu_present
from runtime.interpreter import Interpreter
from runtime.model_folder import HUB_TOKENS
from runtime.ports import bracketed
from runtime.processes import end_strays, end_with_parent
from runtime.settings import RuntimeSettings
from runtime.triton_runtime import TritonRuntime, obtain

SHM_DIR = Path("/dev/shm")
RUN_ID_VARIABLE = "SERVICE_RUN_ID"
LAUNCHER_VARIABLE = "SERVICE_LAUNCHER"  # its process id
# After the last request the engines are taken down, which takes 10 s on an idle machine.
ENGINE_STOP_S = 30
CLOSED_PROTOCOLS = "shared-memory,model-repository,trace,logging"
# A container's /dev/shm has 64 MB and vLLM wants some of it: start small, grow in useful steps.
SHM_BYTES = 8 << 20
SHM_GROWTH_BYTES = 4 << 20
# The model fetches nothing and admits nobody: what is not in its environment cannot leak from it.
# The headers of traces may hold a collector's key; the traces are the gateway's.
_OTLP_HEADERS = tuple(f"OTEL_EXPORTER_OTLP_{kind}HEADERS" for kind in ("", "TRACES_", "METRICS_", "LOGS_"))
NOT_FOR_TRITON = ("API_KEY", "ADMIN_TOKEN", *HUB_TOKENS, *_OTLP_HEADERS)


def triton_environment(
    environ: Mapping[str, str], settings: RuntimeSettings, runtime: TritonRuntime, python: Interpreter
) -> dict[str, str]:
    """The environment of tritonserver, and with it of the stub and the engines."""
    env = {name: value for name, value in environ.items() if name not in NOT_FOR_TRITON}
    # The interpreter's own library folder goes first: with another libpython of its version its modules do not load.
    libpython_dir = python.shared_library_dir()
    libraries = [libpython_dir, *runtime.library_path] if libpython_dir and runtime.embedded else []
    env["LD_LIBRARY_PATH"] = _joined(libraries, environ.get("LD_LIBRARY_PATH"))
    if not env["LD_LIBRARY_PATH"]:
        del env["LD_LIBRARY_PATH"]
    # The stub's packages are those of the first `python3` on PATH.
    env["PATH"] = _joined([python.executable.parent], environ.get("PATH", os.defpath))
    env |= {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    # Engines start sooner from compiled modules; an installation may have left the compiling to the first start.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env | settings.model_variables()


def triton_arguments(settings: RuntimeSettings, runtime: TritonRuntime, run_id: str) -> list[str]:
    """The command line of tritonserver, the program included. Flags as of Triton 2.51; nothing newer is used."""
    metrics_address = settings.triton_metrics_address
    return [
        str(runtime.server),
        f"--model-repository={settings.model_repository}",
        f"--backend-directory={runtime.backend_dir}",
        "--model-control-mode=none",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={math.ceil(settings.shutdown_grace_s) + ENGINE_STOP_S}",
        "--allow-http=false",  # its default port is the gateway's
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
        "--allow-grpc=true",
        f"--grpc-address={bracketed(settings.grpc_address(runtime.embedded))}",
        f"--grpc-port={settings.triton_grpc_port}",
        # Nobody knows the secret: these doors are closed. It may stand in the process list, it opens nothing else.
        f"--grpc-restricted-protocol={CLOSED_PROTOCOLS}:triton-closed={secrets.token_hex(16)}",
        "--allow-metrics=true",
        f"--allow-gpu-metrics={str(gpu_present()).lower()}",  # without a GPU its collector only complains
        # Its HTTP library takes IPv6 only so.
        f"--metrics-address={'ipv6:' if ':' in metrics_address else ''}{metrics_address}",
        f"--metrics-port={settings.triton_metrics_port}",
        "--pinned-memory-pool-byte-size=0",  # text tensors stay on the CPU
        f"--backend-config=python,shm-default-byte-size={SHM_BYTES}",
        f"--backend-config=python,shm-growth-byte-size={SHM_GROWTH_BYTES}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix(run_id)}",
    ]


def shm_prefix(run_id: str) -> str:
    """How the names of this run's shared memory regions begin."""
    return f"triton_llm_{run_id}_"


def remove_shared_memory(run_id: str, folder: Path = SHM_DIR) -> None:
    """Remove what a killed Triton of this run has left. The run's id is unique, so no other service is touched."""
    for region in folder.glob(f"{shm_prefix(run_id)}*"):
        region.unlink(missing_ok=True)


def end_predecessor(environ: Mapping[str, str], run_id: str) -> None:
    """End what a killed Triton of this run has left: its engines hold the memory that the next ones need."""
    launcher = environ.get(LAUNCHER_VARIABLE)
    left = end_strays(int(launcher), supervisord=os.getppid()) if launcher else []
    if left:
        print(f"these processes of the last Triton could not be ended: {left}", file=sys.stderr, flush=True)
    remove_shared_memory(run_id)


def run_triton(environ: Mapping[str, str]) -> NoReturn:
    """Become tritonserver, which stops when supervisord is gone.

    Raises:
        StartError: there is no Triton to start, or a setting is bad.
    """
    settings = RuntimeSettings.from_env(environ)
    python = Interpreter.running()
    runtime = obtain(settings, environ, python)
    run_id = environ.get(RUN_ID_VARIABLE) or secrets.token_hex(4)
    end_predecessor(environ, run_id)
    arguments = triton_arguments(settings, runtime, run_id)
    end_with_parent(signal.SIGTERM)
    os.execve(runtime.server, arguments, triton_environment(environ, settings, runtime, python))


def _joined(first: list[Path], rest: str | None) -> str:
    return os.pathsep.join([*map(str, first), *([rest] if rest else [])])
