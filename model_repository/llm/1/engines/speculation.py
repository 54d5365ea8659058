"""Speculative decoding: vLLM's ``speculative_config`` from settings, or why there is none. Does not import vLLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import StartupError
from ..logs import logger
from ..settings import SpeculationSettings

Release = tuple[int, ...]

# The first vLLM that does it; ngram and eagle3 are in every one that is supported (0.10.0 on).
_SINCE: dict[str, Release] = {"draft_model": (0, 15), "suffix": (0, 11, 1)}
_WITH_DRAFT = ("draft_model", "eagle3")


def speculative_config(
    speculation: SpeculationSettings, release: Release, has_package: Callable[[str], bool] | None = None
) -> dict[str, Any] | None:
    """vLLM's configuration, or ``None`` for no speculation.

    What the installed vLLM or the machine lacks raises :class:`StartupError`, or, with ``SPEC_DRAFT_OPTIONAL``, is a
    warning and no speculation. ``release`` is the installed vLLM's; empty counts as the newest.
    """
    if not speculation.enabled:
        return None
    problem = _problem(speculation, release, has_package or _is_installed)
    if problem is None:
        return _config(speculation)
    if not speculation.draft_optional:
        raise StartupError(problem)
    logger.warning("speculative decoding is off: %s", problem)
    return None


def _problem(speculation: SpeculationSettings, release: Release, has_package: Callable[[str], bool]) -> str | None:
    method = speculation.method
    since = _SINCE.get(method, ())
    if release and release < since:
        installed, needed = (".".join(map(str, version)) for version in (release, since))
        return f"SPEC_METHOD={method}: vLLM {installed} does not do it, {needed} and newer do"
    if method == "suffix" and not has_package("arctic_inference"):
        return "SPEC_METHOD=suffix: it needs the package arctic-inference, which is not installed"
    if method not in _WITH_DRAFT:
        return None
    if speculation.draft_dir is None:
        return f"SPEC_METHOD={method}: it needs a draft model, SPEC_DRAFT_MODEL_ID or SPEC_DRAFT_MODEL_DIR"
    if not Path(speculation.draft_dir, "config.json").is_file():
        return f"SPEC_DRAFT_MODEL_DIR={speculation.draft_dir}: no model's folder, it has no config.json"
    return None


def _config(speculation: SpeculationSettings) -> dict[str, Any]:
    config: dict[str, Any] = {"method": speculation.method, "num_speculative_tokens": speculation.num_tokens}
    if speculation.method == "ngram":
        config["prompt_lookup_max"] = speculation.ngram_lookup_max
        config["prompt_lookup_min"] = speculation.ngram_lookup_min
    if speculation.method in _WITH_DRAFT:
        config["model"] = speculation.draft_dir
        if speculation.draft_max_model_len is not None:
            config["max_model_len"] = speculation.draft_max_model_len
    return config


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
