"""Record what the adapter of vLLM relies on, from a version's sources, without importing them.

    python tests/unit/model/signatures/record.py VERSION FOLDER

``FOLDER`` is the package ``vllm`` of that version, from a wheel or an installation. Writes ``VERSION.json`` beside
this file.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIELDS = {
    "engine_arguments": ("engine/arg_utils.py", ("EngineArgs", "AsyncEngineArgs")),
    "sampling_params": ("sampling_params.py", ("SamplingParams",)),
    "lora_request": ("lora/request.py", ("LoRARequest",)),
    "scheduler_stats": ("v1/metrics/stats.py", ("SchedulerStats",)),
    "iteration_stats": ("v1/metrics/stats.py", ("IterationStats",)),
    "finished_request_stats": ("v1/metrics/stats.py", ("FinishedRequestStats",)),
}
PARAMETERS = {
    "from_engine_args": ("v1/engine/async_llm.py", "AsyncLLM", "from_engine_args"),
    "generate": ("v1/engine/async_llm.py", "AsyncLLM", "generate"),
    "record": ("v1/metrics/loggers.py", "StatLoggerBase", "record"),
}
NAMES = {
    "sampling_params_classes": "sampling_params.py",
    "exceptions": "exceptions.py",
    "engine_exceptions": "v1/engine/exceptions.py",
}


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])


def class_named(module: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def fields(node: ast.ClassDef | None) -> Iterator[str]:
    """Annotated attributes of a class, and what its ``__init__`` sets."""
    for item in ast.walk(node) if node else ():
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield item.target.id
        targets = (
            item.targets if isinstance(item, ast.Assign) else [item.target] if isinstance(item, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
                yield target.attr


def parameters(node: ast.ClassDef | None, method: str) -> list[str]:
    for item in node.body if node else ():
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name == method:
            return [argument.arg for argument in (*item.args.args, *item.args.kwonlyargs)]
    return []


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (file, classes) in FIELDS.items():
        module = parsed(folder / file)
        found[name] = sorted({field for one in classes for field in fields(class_named(module, one))})
    for name, (file, one, method) in PARAMETERS.items():
        found[name] = parameters(class_named(parsed(folder / file), one), method)
    for name, file in NAMES.items():
        classes = [node.name for node in parsed(folder / file).body if isinstance(node, ast.ClassDef)]
        found[name] = sorted(classes)
    return found


if __name__ == "__main__":
    version, folder = sys.argv[1:]
    target = Path(__file__).with_name(f"{version}.json")
    target.write_text(json.dumps(record(Path(folder)), indent=1) + "\n", encoding="utf-8")
