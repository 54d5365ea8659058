"""Which process reads which environment variable, found out by asking the settings classes themselves."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from download import options as download_options
from download.errors import DownloadError
from gateway.environment import SettingsError
from gateway.settings import GatewaySettings
from llm_model import settings as model_settings
from runtime.errors import BadSetting
from runtime.settings import RuntimeSettings
from webui.settings import SettingsError as WebSettingsError
from webui.settings import WebSettings

READERS: dict[str, Callable[[Mapping[str, str]], Any]] = {
    "gateway": GatewaySettings.from_env,
    "model": model_settings.ModelSettings.from_env,
    "runtime": RuntimeSettings.from_env,
    "webui": WebSettings.from_env,
    "download": lambda environ: download_options.Options.parse([], environ),
}
_REFUSALS = (SettingsError, model_settings.SettingsError, BadSetting, DownloadError, WebSettingsError)
# Some variables only matter to a model that comes from a hub.
_WITH_MODELS = {"MODEL_ID": "some/model", "SPEC_DRAFT_MODEL_ID": "some/draft"}


class Recording(Mapping[str, str]):
    """An empty environment that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("a variable is to be asked for by its name")

    def __len__(self) -> int:
        raise AssertionError("a variable is to be asked for by its name")


def refuses(process: str, environ: Mapping[str, str]) -> bool:
    """Whether the process would not start with these variables."""
    try:
        READERS[process](environ)
    except _REFUSALS:
        return True
    return False


def changes(process: str, name: str, value: str) -> bool:
    """Whether a value of the variable makes a difference to the process, or is refused by it."""
    environ = {**_WITH_MODELS, name: value}
    return refuses(process, environ) or bool(READERS[process](environ) != READERS[process](_WITH_MODELS))


def _names_asked_for(process: str) -> set[str]:
    environ = Recording()
    READERS[process](environ)
    return environ.asked


def _names_that_change_the_download() -> set[str]:
    """Of all names that the module's texts can form, those whose value makes a difference.

    The download lays its command line over a copy of the environment, so that a recording would see nothing.
    """
    nodes = ast.walk(ast.parse(inspect.getsource(download_options)))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    parts = {text for text in texts if re.fullmatch(r"[A-Z_]+", text)}
    candidates = parts | {first + second for first in parts for second in parts if second.startswith("_")}
    return {name for name in candidates if any(changes("download", name, value) for value in ("1", "owner/name"))}


def _readers_by_name() -> dict[str, set[str]]:
    names = {process: _names_asked_for(process) for process in ("gateway", "model", "runtime", "webui")}
    names["download"] = _names_that_change_the_download()
    return {name: {process for process in names if name in names[process]} for name in set().union(*names.values())}


READ_BY = _readers_by_name()
"""Variable → the processes that read it."""
