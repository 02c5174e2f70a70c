"""Fingerprints: digests of what a read model's rows depend on. They change with the logic, and not with its layout.

SQL is compared as DuckDB writes it, Python by its syntax tree without docstrings. A function includes the functions of
the same package that it calls, and the constants of its module that it reads.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from types import CodeType, FunctionType
from typing import Any
from uuid import UUID

from refold.event_schemas import Upcaster
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, ReadModel, View
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import normalised

_CONSTANTS = (str, bytes, bool, int, float, Decimal, date, timedelta, UUID)
Parts = dict[str, str]
"""Name of a part (``declaration``, ``seed``, ``handler OrderPlaced``, ``upcaster …``, ``schema …``) to its digest."""


def fingerprint_parts(model: ReadModel, domain: Domain) -> Parts:
    """Return a digest of each part that the rows of a read model depend on."""
    parts: Parts = {"declaration": _digest(_declaration(model))}
    if model.seed is not None:
        parts["seed"] = _digest(normalised(model.seed))
    for handler in model.handlers:
        parts[f"handler {handler.event_type}"] = _digest([handler.sql.text, handler.deletes])
    keys = {key for h in model.handlers for key in domain.registry.sources(h.event_type)}
    for event_type, version in sorted(keys):
        parts[f"schema {event_type} v{version}"] = _digest(str(domain.registry.schema(event_type, version)))
        if (step := domain.registry.upcaster((event_type, version))) is not None:
            parts[f"upcaster {event_type} v{version}"] = _digest(_upcaster(step))
    return parts


def view_digest(view: View) -> str:
    """Return the digest of a view's SQL; if DuckDB cannot serialise it, of its exact text."""
    try:
        return _digest(normalised(view.select))
    except SqlError:
        return _digest(view.select)


def fingerprint(parts: Parts) -> str:
    """Return one digest of all parts."""
    return _digest(parts)


def _declaration(model: ReadModel) -> list[Any]:
    if isinstance(model, Fold):
        return ["fold", dict(model.key), dict(model.columns), function_text(model.fold)]
    counted = {name: model.contributed[name] for name in model.distinct_columns()}
    columns = {name: [r.kind.value, counted.get(name, r.type)] for name, r in model.columns.items()}
    return ["projection", dict(model.key), columns, dict(model.derived)]


def _upcaster(step: Upcaster) -> list[Any]:
    text = normalised(step.sql()) if step.form is Form.SQL else function_text(step.function)
    return [step.form.value, list(step.targets), text]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def function_text(function: Callable[..., Any]) -> str:
    """Return a function, and those of its package that it calls, as text without layout, comments and docstrings."""
    seen: dict[str, str] = {}
    _collect(function, seen)
    return json.dumps(seen, sort_keys=True)


def _collect(function: Callable[..., Any], seen: dict[str, str]) -> None:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in seen:
        return
    seen[name] = _tree(function)
    package = (function.__module__ or "").split(".")[0]
    for used in sorted(_names(getattr(function, "__code__", None))):
        value = getattr(function, "__globals__", {}).get(used)
        if isinstance(value, FunctionType) and (value.__module__ or "").split(".")[0] == package:
            _collect(value, seen)
        elif isinstance(value, _CONSTANTS):
            seen[f"{function.__module__}.{used}"] = repr(value)


def _names(code: CodeType | None) -> set[str]:
    """Return the globals that a function reads, including those in its comprehensions and lambdas."""
    if code is None:
        return set()
    return set(code.co_names).union(*(_names(c) for c in code.co_consts if isinstance(c, CodeType)))


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
