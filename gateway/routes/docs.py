"""``GET /docs``: the OpenAPI document as a page. Made here and without scripts, so that it needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #ccc; } code, pre { font-family: ui-monospace, monospace; font-size: 0.9em; }
pre { background: #8881; padding: 0.7rem; overflow-x: auto; } td, th { text-align: left; padding: 0 1rem 0 0; }
td { vertical-align: top; } .method { color: #07a; } :root { color-scheme: light dark; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def docs_routes() -> APIRouter:
    """The route; it shows the application that it belongs to."""
    router = APIRouter()

    @router.get("/docs", response_class=HTMLResponse)
    async def docs(request: Request) -> Response:
        """This API as a page."""
        return HTMLResponse(page(request.app.openapi()), headers={"content-security-policy": _POLICY})

    return router


def page(document: Mapping[str, Any]) -> str:
    """The whole page for an OpenAPI document."""
    title = html.escape(document["info"]["title"])
    operations = [
        part
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for part in _operation(method, path, operation, document)
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>',
            f"<h1>{title}</h1><p>{html.escape(document['info'].get('description', ''))}</p>",
            '<p>For programs: <a href="openapi.json">openapi.json</a></p>',
            *operations,
            "</body></html>",
        ]
    )


def _operation(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section><h2><span class="method">{method.upper()}</span> <code>{html.escape(path)}</code></h2>'
    yield f"<p>{html.escape(operation.get('description', ''))}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        yield "<table>" + "".join(_fields(_resolved(body["schema"], document))) + "</table>"
        for name, example in body.get("examples", {}).items():
            shown = json.dumps(example["value"], ensure_ascii=False)
            yield f"<p>Example: {html.escape(name)}</p><pre>{html.escape(shown)}</pre>"
    statuses = ", ".join(
        f"{status} {answer.get('description', '')}" for status, answer in operation["responses"].items()
    )
    yield f"<p>Answers: {html.escape(statuses)}</p></section>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        mark = " (required)" if name in required else ""
        cells = (f"<code>{html.escape(name)}</code>{mark}", _kind(field), html.escape(field.get("description", "")))
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _kind(field: Mapping[str, Any]) -> str:
    """The types that a field may have, in a few words."""
    choices = field.get("anyOf") or field.get("oneOf") or [field]
    names = [str(choice.get("type") or choice.get("const") or "any") for choice in choices]
    return html.escape(" or ".join(dict.fromkeys(name for name in names if name != "null")))


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return found
