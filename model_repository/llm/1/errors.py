"""Errors of the model process.

    ModelError                 what a caller may be told; carries a Triton error code
    ├── InvalidArgument        the request is at fault (INVALID_ARG)
    ├── EngineUnavailable      no engine can take the request now (UNAVAILABLE)
    │   └── EngineDied         the engine died with this request in hand; another may take it
    └── GenerationFailed       an engine failed on this request (INTERNAL)
    StartupError               the model cannot be served; the text is one line for the operator
    └── EngineRefused          this backend cannot serve the model on this machine; another may

Every message sent to a client begins with the code's name, because Triton drops the code of an error on a
stream unless the client sent the metadata ``triton_grpc_error: true``.
"""

from __future__ import annotations


class ModelError(Exception):
    """An error that is reported to the caller of one request or one row of it."""

    code = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def detached(self) -> ModelError:
        """A copy without traceback and cause, to be kept as data.

        A traceback keeps its frames alive and with them Triton's request, whose shared memory must be given back.
        """
        return type(self)(self.message)


class InvalidArgument(ModelError):
    """A tensor or parameter has a value that is not allowed; the message names it, the value and what is."""

    code = "INVALID_ARG"


class EngineUnavailable(ModelError):
    """No engine is alive; the same request may succeed later."""

    code = "UNAVAILABLE"


class EngineDied(EngineUnavailable):
    """The engine died with this request in hand."""


class GenerationFailed(ModelError):
    """The engine failed on this request."""

    code = "INTERNAL"


class StartupError(Exception):
    """The model cannot be served: bad setting, broken model folder, too little memory."""


class EngineRefused(StartupError):
    """The backend's software is missing, broken, or does not fit the model or the machine."""


def first_line(exc: BaseException) -> str:
    """What went wrong in one line. Pydantic's own first line only says how many things did: then the first of them."""
    problems = getattr(exc, "errors", None)
    if callable(problems) and (found := problems()):
        place = ".".join(map(str, found[0]["loc"]))
        return first_line(ValueError(f"{place}: {found[0]['msg']}" if place else found[0]["msg"]))
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
