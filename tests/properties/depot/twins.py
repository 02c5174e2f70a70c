"""A handler in SQL beside the same in Python, as a read model and its meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Fold, Projection, ReadModel
from refold.warehouse.declarations.reducers import Reducer
from tests.properties.reference import Model

Twin = tuple[str | Delete, Callable[[Any], list[dict[str, Any]]]]
"""A handler in SQL and in Python."""


def projection(
    name: str,
    key: Mapping[str, str],
    columns: Mapping[str, Reducer],
    on: Mapping[type, Twin],
    derived: Mapping[str, str] | None = None,
) -> tuple[ReadModel, Model]:
    """Declare a projection, with its meaning."""
    sql = {cls: twin[0] for cls, twin in on.items()}
    made = Projection(name=name, key=key, columns=columns, on=sql, derived=derived or {})
    kinds = {c: r.kind.value for c, r in columns.items()}
    return made, Model(name, tuple(key), _handlers(on), kinds=kinds)


def fold_model(
    name: str, key: Mapping[str, str], columns: Mapping[str, str], on: Mapping[type, Twin], fold: Callable[..., Any]
) -> tuple[ReadModel, Model]:
    """Declare a fold, with its meaning."""
    sql = {cls: str(twin[0]) for cls, twin in on.items()}
    made = Fold(name=name, key=key, columns=columns, on=sql, fold=fold)
    return made, Model(name, tuple(key), _handlers(on), fold=fold, fold_columns=tuple(columns))


def _handlers(on: Mapping[type, Twin]) -> dict[str, tuple[Callable[[Any], list[dict[str, Any]]], bool]]:
    names = {cls: cls.__event_type__ for cls in on}  # type: ignore[attr-defined]
    return {names[cls]: (python, isinstance(sql, Delete)) for cls, (sql, python) in on.items()}


def times(a: int, b: Decimal | None) -> Decimal | None:
    """Multiply as SQL does: NULL gives NULL."""
    return None if b is None else a * b


def plain_lines(e: Any) -> list[dict[str, Any]]:
    """Give the lines of a Packed as plain dicts."""
    return [{"sku": line["sku"], "quantity": line["quantity"]} for line in e.lines]


def text_or(text: str | None, other: str) -> str:
    """Say SQL's coalesce."""
    return other if text is None else text
