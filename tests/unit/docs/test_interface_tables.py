"""The tables of endpoints, errors, tensors and parameters are those of the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from fastapi import FastAPI

from gateway import errors as gateway_errors
from gateway import http_protocol
from gateway.app import create_app
from gateway.errors import ClientGone, GatewayError
from gateway.middleware.draining import Drain
from gateway.settings import GatewaySettings
from llm_model import errors as model_errors
from llm_model.engines import stats
from llm_model.parameters import SamplingParameters
from tests.unit.docs.markdown import CHINESE, ENGLISH, ROOT, table

TRITON_MODEL = ROOT / "docs" / "triton-model.md"

by_readme = pytest.mark.parametrize(
    ("readme", "request_column", "status_column"),
    [(ENGLISH, "request", "status"), (CHINESE, "请求", "状态码")],
    ids=["English", "Chinese"],
)


@by_readme
def test_the_endpoints_are_the_applications_routes(readme: Path, request_column: str, status_column: str) -> None:
    rows = table(readme.read_text(encoding="utf-8"), request_column).column(request_column)
    app = create_app(GatewaySettings(), Drain())
    assert sorted(rows) == sorted(f"`{method} {path}`" for method, path in routes(app))


@by_readme
def test_the_errors_are_those_of_the_gateway(readme: Path, request_column: str, status_column: str) -> None:
    rows = table(readme.read_text(encoding="utf-8"), status_column).rows
    assert sorted((int(row[0]), row[1].strip("`")) for row in rows) == sorted(statuses_and_types())


def test_the_tensors_are_those_of_the_configuration() -> None:
    text = TRITON_MODEL.read_text(encoding="utf-8")
    config = (ROOT / "model_repository" / "llm" / "config.pbtxt").read_text(encoding="utf-8")
    inputs, outputs = config.split("output [")
    for part, column in ((inputs, "Input"), (outputs, "Output")):
        declared = re.findall(r'name: "(\w+)", data_type: TYPE_(\w+), dims: \[ (-?\d+) \]', part)
        rows = table(text, column, "Type", "Shape").rows
        assert [(row[0].strip("`"), row[1], row[2].strip("[]")) for row in rows] == declared


def test_the_parameters_are_those_of_the_model() -> None:
    rows = table(TRITON_MODEL.read_text(encoding="utf-8"), "Parameter", "Default").rows
    told = {row[0].strip("`"): json.loads(row[1].strip("`")) for row in rows}
    assert told == {field.name: field.default for field in msgspec.structs.fields(SamplingParameters)}


@pytest.mark.parametrize("parameter", [field.name for field in msgspec.structs.fields(SamplingParameters)])
def test_the_parameters_limits_are_those_of_the_model(parameter: str) -> None:
    rows = table(TRITON_MODEL.read_text(encoding="utf-8"), "Parameter", "Default").rows
    (allowed,) = [row[2] for row in rows if row[0] == f"`{parameter}`"]
    for value in limits(allowed):
        msgspec.convert({parameter: value}, SamplingParameters)
    for value in beyond(allowed):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({parameter: value}, SamplingParameters)


def test_the_request_parameters_of_the_model_itself_are_told() -> None:
    rows = table(TRITON_MODEL.read_text(encoding="utf-8"), "Request parameter").rows
    source = (ROOT / "model_repository" / "llm" / "1" / "tensors.py").read_text(encoding="utf-8")
    names = re.findall(r'^_\w+_PARAMETER = "(\w+)"', source, re.MULTILINE)
    assert sorted(row[0].strip("`") for row in rows) == sorted(names)


def test_the_metrics_are_those_of_the_engines() -> None:
    rows = table(TRITON_MODEL.read_text(encoding="utf-8"), "Metric", "Kind").rows
    told = {(row[0].strip("`"), re.split(r"\W", row[1])[0]) for row in rows}
    kinds: dict[str, Iterable[str]] = {"counter": stats.COUNTERS, "gauge": stats.GAUGES, "histogram": stats.HISTOGRAMS}
    assert told == {(name, kind) for kind, names in kinds.items() for name in names}


def test_the_models_error_codes_are_told() -> None:
    rows = table(TRITON_MODEL.read_text(encoding="utf-8"), "code").rows
    assert {row[0].strip("`") for row in rows} == {error.code for error in model_errors.ModelError.__subclasses__()}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        for method in sorted(getattr(route, "methods", None) or ()):
            if method != "HEAD":
                yield method, getattr(route, "path", "")


def statuses_and_types() -> set[tuple[int, str]]:
    """Everything an answer may say: our error tree, Starlette's two, and what is refused before there is a request."""
    tree: list[type[GatewayError]] = [GatewayError, *GatewayError.__subclasses__()]
    told = {(error.status, error.type) for error in tree if error is not ClientGone}  # nobody reads that one
    told |= {(status, gateway_errors._HTTP_ERROR_TYPES[status]) for status in (404, 405)}
    return told | set(refusals_of_the_protocol())


def refusals_of_the_protocol() -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(inspect.getsource(http_protocol))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_refuse":
            status, kind = (ast.literal_eval(argument) for argument in node.args[:2])
            yield int(status), str(kind)


def limits(allowed: str) -> list[float]:
    """The numbers and truth values that a cell says are allowed."""
    if match := re.match(r"above (-?\d+), up to (\d+)", allowed):
        return [int(match[2])]
    if match := re.match(r"at least (-?\d+)", allowed):
        return [int(match[1])]
    if match := re.match(r"(-?\d+) to (\d+)", allowed):
        return [int(match[1]), int(match[2])]
    return [True, False] if allowed == "true, false" else []


def beyond(allowed: str) -> list[float]:
    """The nearest whole numbers that a cell says are not allowed."""
    if match := re.match(r"above (-?\d+), up to (\d+)", allowed):
        return [int(match[1]), int(match[2]) + 1]
    if match := re.match(r"at least (-?\d+)", allowed):
        return [int(match[1]) - 1]
    if match := re.match(r"(-?\d+) to (\d+)", allowed):
        return [int(match[1]) - 1, int(match[2]) + 1]
    return [2] if allowed == "true, false" else []
