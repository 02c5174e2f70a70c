"""What reducers mean: the value of a column, and one more contribution to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from decimal import Context, Decimal, Inexact
from typing import Any

from refold.warehouse.declarations.reducers import Kind

_EXACT = Context(prec=2000, traps=[Inexact])  # Python's default would round a sum to 28 digits

START: dict[Kind, Callable[[], Any]] = {
    Kind.TOTAL: lambda: 0,
    Kind.COUNT: lambda: 0,
    Kind.MINIMUM: lambda: None,
    Kind.MAXIMUM: lambda: None,
    Kind.FIRST: lambda: None,
    Kind.LATEST: lambda: None,
    Kind.COLLECT: list,
    Kind.COUNT_DISTINCT: lambda: frozenset(),
}
"""The value of a column to which nothing was contributed."""


def combine(kind: Kind, value: Any, given: Any, rank: Callable[[Any], Any]) -> Any:
    """Return the value of a column after one more contribution.

    Args:
        kind: the kind of reducer.
        value: the value before; of a ``count_distinct``, the distinct contributions.
        given: the contribution.
        rank: contribution to what orders it.
    """
    if kind is Kind.LATEST:
        return given
    if given is None:
        return value
    if kind is Kind.TOTAL:
        return _EXACT.add(value, given) if isinstance(given, Decimal) else value + given
    if kind is Kind.COUNT:
        return value + 1
    if kind is Kind.COLLECT:
        return [*value, given]
    if kind is Kind.COUNT_DISTINCT:
        return value | {identity(given)}
    if kind is Kind.FIRST:
        return given if value is None else value
    given = with_one_zero(given)
    if value is None:
        return given
    return min(value, given, key=rank) if kind is Kind.MINIMUM else max(value, given, key=rank)


def published(kind: Kind, value: Any) -> Any:
    """Return the value of a column as readers see it."""
    return len(value) if kind is Kind.COUNT_DISTINCT else value


def identity(value: Any) -> Hashable:
    """Return something equal for equal values: NaN equals NaN, and 0.0 equals -0.0."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN", float
    if isinstance(value, dict):
        return tuple((name, identity(v)) for name, v in value.items())
    if isinstance(value, list):
        return tuple(map(identity, value))
    return value  # type: ignore[no-any-return]


def with_one_zero(value: Any) -> Any:
    """Return a value whose float zeros are positive: equal keys and extremes look the same, whichever came first."""
    if isinstance(value, dict):
        return {with_one_zero(name): with_one_zero(v) for name, v in value.items()}
    if isinstance(value, list):
        return [with_one_zero(v) for v in value]
    return value + 0.0 if isinstance(value, float) else value


def rank(value: Any) -> Any:
    """Return what orders values as SQL does: NaN is the greatest float, and NULL inside a value the greatest of all."""
    if isinstance(value, list | dict):
        parts = value.values() if isinstance(value, dict) else value
        return [(v is None, None if v is None else rank(v)) for v in parts]
    return (math.isnan(value), 0.0 if math.isnan(value) else value) if isinstance(value, float) else value
