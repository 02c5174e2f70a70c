"""Fingerprints: what a read model's rows depend on, so that a change is seen and a change of layout is not.

SQL is compared in the form DuckDB itself writes it, Python by its syntax tree without docstrings; functions of the same
package that a function calls count as part of it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import Any

from event_schemas import Upcaster
from event_schemas.registry import Shape
from event_schemas.upcasting import Form
from warehouse.domain import Domain
from warehouse.projection import Fold, ReadModel
from warehouse.sql import normalised

Parts = dict[str, str]
"""Name of a part (``declaration``, ``handler OrderPlaced``, ``upcaster …``, ``schema …``) to its digest."""


def fingerprint_parts(model: ReadModel, domain: Domain) -> Parts:
    """Digest each thing that the rows of a read model depend on."""
    parts: Parts = {"declaration": _digest(_declaration(model))}
    for handler in model.handlers:
        parts[f"handler {handler.event_type}"] = _digest([handler.sql.text, handler.deletes])
    shapes = {s for h in model.handlers for s in domain.registry.sources(h.event_type)}
    for shape in sorted(shapes):
        parts[f"schema {_told(shape)}"] = _digest(str(domain.registry.schema(*shape)))
        if (step := domain.registry.upcaster(shape)) is not None:
            parts[f"upcaster {_told(shape)}"] = _digest(_upcaster(step))
    return parts


def fingerprint(parts: Parts) -> str:
    """Digest all parts into one fingerprint."""
    return _digest(parts)


def _told(shape: Shape) -> str:
    return f"{shape[0]} v{shape[1]}"


def _declaration(model: ReadModel) -> list[Any]:
    if isinstance(model, Fold):
        return ["fold", dict(model.key), dict(model.columns), function_text(model.fold)]
    columns = {name: [reducer.kind.value, reducer.type] for name, reducer in model.columns.items()}
    return ["projection", dict(model.key), columns, dict(model.derived)]


def _upcaster(step: Upcaster) -> list[Any]:
    text = normalised(step.sql()) if step.form is Form.SQL else function_text(step.function)
    return [step.form.value, list(step.targets), text]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def function_text(function: Callable[..., Any]) -> str:
    """Write a function, and those of its own package that it calls, without layout, comments and docstrings."""
    seen: dict[str, str] = {}
    _collect(function, seen)
    return json.dumps(seen, sort_keys=True)


def _collect(function: Callable[..., Any], seen: dict[str, str]) -> None:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in seen:
        return
    seen[name] = _tree(function)
    package = (function.__module__ or "").split(".")[0]
    code = getattr(function, "__code__", None)
    for used in code.co_names if code else ():
        called = getattr(function, "__globals__", {}).get(used)
        if isinstance(called, FunctionType) and (called.__module__ or "").split(".")[0] == package:
            _collect(called, seen)


def _tree(function: Callable[..., Any]) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts)) if code else repr(function)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
