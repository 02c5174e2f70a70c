"""Reducers: how the contributions of many events to one column become its value.

Each is associative, so the column has the same value whether its events are combined at once, bucket by bucket, or in
increments. A reducer has four pieces of SQL:

``partial``
    contributions -> partial, one row a key. ``_at`` orders contributions; ``latest`` and ``first`` keep it.
``combine``
    partials of several buckets -> one partial.
``final``
    partial -> the column's value.
``merge``
    value in the table and partial of an increment -> new value. An increment is later than everything in the table.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations import totals
from refold.warehouse.engine.duckdb_types import bits_as_floats, floats_as_bits, has_float
from refold.warehouse.engine.sql import SqlError, quote
from refold.warehouse.engine.types import FLOATS, resolved_type


class Kind(Enum):
    """The kinds of reducers."""

    TOTAL = "total"
    COUNT = "count"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    FIRST = "first"
    LATEST = "latest"
    COLLECT = "collect"
    COUNT_DISTINCT = "count_distinct"


@dataclass(frozen=True, slots=True)
class Reducer:
    """One column of a read model: a kind, and the DuckDB type of what events contribute (None: any)."""

    kind: Kind
    type: str | None

    @property
    def column_type(self) -> str:
        """The DuckDB type of the column in the published table."""
        if self.kind in (Kind.COUNT, Kind.COUNT_DISTINCT):
            return "BIGINT"
        return f"{self.type}[]" if self.kind is Kind.COLLECT else str(self.type)

    @property
    def ordered(self) -> bool:
        """Whether the partial keeps the place in the log that its value came from."""
        return self.kind in (Kind.FIRST, Kind.LATEST)


def total(type: str, *, approximate: bool = False) -> Reducer:  # the vocabulary of SQL
    """Sum the contributions; 0 if there are none. NULL is ignored.

    A sum may leave its type and come back. A row whose sum does not fit at the end of a rebuild or an increment is
    withheld from readers and reported, until it fits again.

    Args:
        type: DuckDB type of the sum: an integer or a DECIMAL.
        approximate: allow FLOAT or DOUBLE, whose sum depends on the order of addition.

    Raises:
        ProjectionError: the type is a float and ``approximate`` is not set.
    """
    if not approximate and _is_float(type):
        raise ProjectionError(
            f"total({type!r}): a sum of floats depends on the order of addition, so a rebuild could differ from the "
            "stream. Use DECIMAL(p,s), or set approximate=True."
        )
    return Reducer(Kind.TOTAL, type)


def _is_float(type: str) -> bool:
    """Check whether a type is a float by any of its names; the read model reports what is no type."""
    with suppress(SqlError):
        return resolved_type(type) in FLOATS
    return False


def count() -> Reducer:
    """Count the contributions that are not NULL."""
    return Reducer(Kind.COUNT, None)


def minimum(type: str) -> Reducer:
    """Keep the smallest contribution; NULL is ignored."""
    return Reducer(Kind.MINIMUM, type)


def maximum(type: str) -> Reducer:
    """Keep the largest contribution; NULL is ignored."""
    return Reducer(Kind.MAXIMUM, type)


def first(type: str) -> Reducer:
    """Keep the first contribution, by position, that is not NULL."""
    return Reducer(Kind.FIRST, type)


def latest(type: str) -> Reducer:
    """Keep the last contribution, by position; a contributed NULL sets NULL."""
    return Reducer(Kind.LATEST, type)


def collect(type: str) -> Reducer:
    """List the contributions that are not NULL, in position order.

    Args:
        type: DuckDB type of one element.
    """
    return Reducer(Kind.COLLECT, type)


def count_distinct() -> Reducer:
    """Count the distinct contributions that are not NULL. The count is exact: a separate table keeps the values."""
    return Reducer(Kind.COUNT_DISTINCT, None)


def at_column(name: str) -> str:
    """Return the partial's column that holds the place in the log which the value of ``name`` came from."""
    return f"_at_{name}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a projection, as its SQL needs it.

    Attributes:
        name: the column.
        reducer: its reducer.
        type: DuckDB type of a contribution.
        wide: whether the sum of contributions may need more than 38 digits; see ``totals.py``.
    """

    name: str
    reducer: Reducer
    type: str
    wide: bool = False


def partial(column: Column, *, at: str, named_by: str | None, never_null: bool) -> dict[str, str]:
    """Return the aggregates from contributions to a partial.

    Args:
        column: the column.
        at: the type of a place in the log.
        named_by: an SQL condition that selects the contributions of handlers that yield the column; None if all do.
        never_null: whether no handler can contribute NULL to it.

    Returns:
        Partial column to SQL aggregate.
    """
    reducer, name, value = column.reducer, column.name, quote(column.name)
    some = f"FILTER ({value} IS NOT NULL)"
    if reducer.kind is Kind.LATEST:
        if never_null:  # arg_max ignores the NULLs of handlers that do not yield the column
            return {name: _chosen("arg_max", column, "_at", at), at_column(name): f"max(_at) {some}"}
        named = f" FILTER ({named_by})" if named_by else ""
        return {name: _chosen("arg_max_null", column, "_at", at, named), at_column(name): f"max(_at){named}"}
    if reducer.kind is Kind.FIRST:
        return {name: _chosen("arg_min", column, "_at", at), at_column(name): f"min(_at) {some}"}
    if reducer.kind is Kind.TOTAL:
        return {name: totals.sum_of(value, str(reducer.type), wide=column.wide)}
    simple = {
        Kind.COUNT: f"count({value})",
        Kind.MINIMUM: f"min({value})",
        Kind.MAXIMUM: f"max({value})",
        Kind.COLLECT: f"list({{'at': _at, 'value': {value}}}) {some}",
        Kind.COUNT_DISTINCT: f"list(DISTINCT {value}) {some}",
    }
    return {name: simple[reducer.kind]}


def _chosen(aggregate: str, column: Column, place: str, at: str, condition: str = "") -> str:
    """Return the aggregate that chooses a contribution by its place.

    Floats pass through it as bits, or -0.0 would become 0.0; a DOUBLE need not, if the place is a BIGINT.
    """
    value = quote(column.name)
    if not has_float(column.type) or (resolved_type(column.type) == "DOUBLE" and at == "BIGINT"):
        return f"{aggregate}({value}, {place}){condition}"
    chosen = f"{aggregate}({floats_as_bits(value, column.type)}, {place}){condition}"
    return bits_as_floats(chosen, column.type)


def partial_types(column: Column, at: str) -> dict[str, str]:
    """Return the DuckDB types of a partial's columns.

    Args:
        column: the column.
        at: the type of a place in the log.
    """
    reducer, name = column.reducer, column.name
    if reducer.ordered:
        return {name: column.type, at_column(name): at}
    if reducer.kind is Kind.TOTAL:
        return {name: totals.sum_type(str(reducer.type), wide=column.wide)}
    simple = {
        Kind.COUNT: "BIGINT",
        Kind.MINIMUM: column.type,
        Kind.MAXIMUM: column.type,
        Kind.COLLECT: f'STRUCT("at" {at}, "value" {column.type})[]',
        Kind.COUNT_DISTINCT: f"{column.type}[]",
    }
    return {name: simple[reducer.kind]}


def combine(column: Column, *, at: str) -> dict[str, str]:
    """Return the aggregates from partials of several buckets to one partial.

    Args:
        column: the column.
        at: the type of a place in the log.
    """
    reducer, name = column.reducer, column.name
    value, place = quote(name), quote(at_column(name))
    if reducer.kind is Kind.LATEST:
        return {name: _chosen("arg_max_null", column, place, at), at_column(name): f"max({place})"}
    if reducer.kind is Kind.FIRST:
        return {name: _chosen("arg_min", column, place, at), at_column(name): f"min({place})"}
    simple = {
        Kind.TOTAL: f"sum({value})",
        Kind.COUNT: f"CAST(sum({value}) AS BIGINT)",
        Kind.MINIMUM: f"min({value})",
        Kind.MAXIMUM: f"max({value})",
        Kind.COLLECT: f"flatten(list({value}) FILTER ({value} IS NOT NULL))",
        Kind.COUNT_DISTINCT: f"list_distinct(flatten(list({value}) FILTER ({value} IS NOT NULL)))",
    }
    return {name: simple[reducer.kind]}


def final(column: Column, *, prefix: str = "") -> str:
    """Return the column's value as an expression over a partial; NULL for a total that does not fit its type."""
    reducer, value = column.reducer, prefix + quote(column.name)
    if reducer.kind is Kind.TOTAL:
        return totals.fitting_sum(value, str(reducer.type), wide=column.wide)
    if reducer.kind is Kind.COUNT:
        return f"coalesce({value}, 0)"
    if reducer.kind is Kind.COLLECT:
        ordered = f"list_transform(list_sort(coalesce({value}, [])), lambda _x: _x.value)"
        return f"CAST({ordered} AS {reducer.column_type})"
    if reducer.kind is Kind.COUNT_DISTINCT:
        return f"CAST(coalesce(len({value}), 0) AS BIGINT)"
    return f"CAST({value} AS {reducer.column_type})"


def touches(reducer: Reducer, name: str) -> str:
    """Return the condition that an increment's partial ``d`` changes the column."""
    if reducer.ordered:
        return f"d.{quote(at_column(name))} IS NOT NULL"
    return f"d.{quote(name)} > 0" if reducer.kind is Kind.COUNT else f"d.{quote(name)} IS NOT NULL"


def merge(column: Column) -> str:
    """Return the new value as an expression over the table's row ``t`` and the increment's partial ``d``.

    It raises an error for a total that does not fit its type. For ``count_distinct`` the partial must hold only values
    that are new to the table.
    """
    reducer, name = column.reducer, column.name
    old, new = f"t.{quote(name)}", f"d.{quote(name)}"
    value = final(column, prefix="d.")
    if reducer.kind is Kind.LATEST:
        return f"CASE WHEN d.{quote(at_column(name))} IS NULL THEN {old} ELSE {value} END"
    if reducer.kind is Kind.FIRST:
        return f"coalesce({old}, {value})"
    if reducer.kind is Kind.MINIMUM:
        return f"CASE WHEN {old} IS NULL OR {new} < {old} THEN {value} ELSE {old} END"
    if reducer.kind is Kind.MAXIMUM:
        return f"CASE WHEN {old} IS NULL OR {new} > {old} THEN {value} ELSE {old} END"
    if reducer.kind is Kind.COLLECT:
        return f"list_concat({old}, {value})"
    if reducer.kind is Kind.TOTAL:
        # DuckDB evaluates this for new rows too, which have no old value.
        return f"CASE WHEN {old} IS NOT NULL THEN {in_range(column, f'{old} + {value}')} END"
    return f"{old} + {value}"


def inserted(column: Column) -> str:
    """Return the value of a new row as an expression over the partial ``d``; an error as in :func:`merge`."""
    value = final(column, prefix="d.")
    return in_range(column, value) if column.reducer.kind is Kind.TOTAL else value


def in_range(column: Column, value: str) -> str:
    """Return a total, or an error if its type cannot hold it.

    An increment tries the fast statement first: its transaction fails, and it then merges exactly.
    """
    declared = str(column.reducer.type)
    fits = f"isfinite({value})" if _is_float(declared) else f"{value} IS NOT NULL"
    return f"CASE WHEN {fits} THEN CAST({value} AS {declared}) ELSE error('a total does not fit its column') END"
