"""Triton's face of the model: initialize, execute, finalize. The work is done in :mod:`service`."""

# ruff: noqa: E402
import locale

# Triton starts the stub with ASCII as the default text encoding and ignores PYTHONUTF8; torch and transformers read
# their own sources and the model's files as UTF-8, so this must come before any other import.
locale.setlocale(locale.LC_CTYPE, "C.UTF-8")

import gc
import os
from typing import Any

import triton_python_backend_utils as pb_utils

from .errors import StartupError
from .logs import configure, logger
from .own_variables import apply_parameters
from .service import ModelService
from .settings import ModelSettings, SettingsError


class TritonPythonModel:
    """Decoupled model: every request is answered through its response sender."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; return when it has answered its warm-up. Raises ``TritonModelException`` with the cause."""
        try:
            apply_parameters(args.get("model_config", "{}"), os.environ)
            settings = ModelSettings.from_env(os.environ)
            configure(settings.log_level, settings.log_format)
            labels = {"model": args["model_name"], "version": args["model_version"]}
            self._service = ModelService(settings, labels)
            self._service.start()
        except (SettingsError, StartupError) as exc:
            logger.error("the model cannot be served: %s", exc)  # noqa: TRY400 - one line, no traceback
            raise pb_utils.TritonModelException(f"the model cannot be served: {exc}") from exc

    def execute(self, requests: list[Any]) -> None:
        """Take requests; never blocks. Answers follow through the response senders."""
        for request in requests:
            self._service.submit(request)

    def finalize(self) -> None:
        """Cancel what runs and stop the engines."""
        self._service.stop()
        del self._service
        gc.collect()  # requests must be gone before the stub takes down the shared memory they live in
