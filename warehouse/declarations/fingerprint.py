"""Fingerprints: what a read model's rows depend on, so that a change is seen and a change of layout is not.

SQL is compared in the form DuckDB itself writes it, Python by its syntax tree without docstrings; functions of the same
package that a function calls, and constants of its module that it reads, count as part of it.
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
from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, ReadModel, View
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import normalised

_CONSTANTS = (str, bytes, bool, int, float, Decimal, date, timedelta, UUID)
Parts = dict[str, str]
"""Name of a part (``declaration``, ``seed``, ``handler OrderPlaced``, ``upcaster …``, ``schema …``) to its digest."""


def fingerprint_parts(model: ReadModel, domain: Domain) -> Parts:
    """Digest each thing that the rows of a read model depend on."""
    parts: Parts = {"declaration": _digest(_declaration(model))}
    if model.seed is not None:
        parts["seed"] = _digest(normalised(model.seed))
    for handler in model.handlers:
        parts[f"handler {handler.event_type}"] = _digest([handler.sql.text, handler.deletes])
    schema_keys = {s for h in model.handlers for s in domain.registry.sources(h.event_type)}
    for schema_key in sorted(schema_keys):
        parts[f"schema {_told(schema_key)}"] = _digest(str(domain.registry.schema(*schema_key)))
        if (step := domain.registry.upcaster(schema_key)) is not None:
            parts[f"upcaster {_told(schema_key)}"] = _digest(_upcaster(step))
    return parts


def view_digest(view: View) -> str:
    """Digest what a view says; one that DuckDB cannot write anew counts letter by letter."""
    try:
        return _digest(normalised(view.select))
    except SqlError:
        return _digest(view.select)


def fingerprint(parts: Parts) -> str:
    """Digest all parts into one fingerprint."""
    return _digest(parts)


def _told(schema_key: SchemaKey) -> str:
    return f"{schema_key[0]} v{schema_key[1]}"


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
    for used in sorted(_names(getattr(function, "__code__", None))):
        value = getattr(function, "__globals__", {}).get(used)
        if isinstance(value, FunctionType) and (value.__module__ or "").split(".")[0] == package:
            _collect(value, seen)
        elif isinstance(value, _CONSTANTS):
            seen[f"{function.__module__}.{used}"] = repr(value)


def _names(code: CodeType | None) -> set[str]:
    """Name the globals that a function reads, also from within its comprehensions and lambdas."""
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
