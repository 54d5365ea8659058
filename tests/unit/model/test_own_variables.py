"""Variables of one model of several come from its configuration."""

from __future__ import annotations

import json

from llm_model.own_variables import apply_parameters


def applied(environ: dict[str, str], **parameters: str) -> dict[str, str]:
    config = {"name": "m", "parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    apply_parameters(json.dumps(config), environ)
    return environ


def test_parameters_go_before_the_environment() -> None:
    assert applied({"A": "1", "B": "2"}, B="3", C="4") == {"A": "1", "B": "3", "C": "4"}


def test_without_parameters_nothing_changes() -> None:
    environ = {"MODEL_ID": "a/b"}
    assert applied(dict(environ)) == environ
    apply_parameters("{}", environ)
    assert environ == {"MODEL_ID": "a/b"}


def test_a_folder_of_its_own_is_not_what_the_id_names() -> None:
    assert applied({"MODEL_ID": "a/b", "MODEL_DIR": "/a"}, MODEL_DIR="/other") == {"MODEL_DIR": "/other"}
    assert applied({"MODEL_ID": "a/b"}, MODEL_DIR="/other", MODEL_ID="c/d")["MODEL_ID"] == "c/d"
