"""SQL from declarations: contributions of events, partials of keys, rows of tables.

A unit of a rebuild and an increment of the stream run the same SQL, over different relations of events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations import reducers, totals
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Handler
from refold.warehouse.declarations.projection import Fold, Projection, ReadModel
from refold.warehouse.declarations.reducers import Column, Kind
from refold.warehouse.engine.duckdb_types import is_float, with_one_zero
from refold.warehouse.engine.sql import columns, literal, quote
from refold.warehouse.engine.syntax_tree import rewrite

Events = Callable[[str], str | None]
"""Event type to an SQL relation of its events in the newest schema version, or None."""

_SPLIT_WEIGHT = 1 << 20
_ROW_ORDINAL_WEIGHT = 1 << 40
_ROW_WEIGHT = 1 << 80
_NOT_FINITE = literal("a total adds numbers, and this value is NaN or infinite")


class Order(Enum):
    """What orders the contributions to one read model; each kind costs more than the one before."""

    POSITION = "position"
    SPLIT = "position, and place among the events that one stored event was split into"
    ROW = "these, and place among the rows of one event"


@dataclass(frozen=True, slots=True)
class Compiled:
    """One read model, compiled for one domain.

    Attributes:
        model: the declaration.
        order: what orders its contributions.
    """

    model: ReadModel
    order: Order

    @property
    def keys(self) -> str:
        """The key columns as an SQL list."""
        return columns(self.model.key)


def compile_model(model: ReadModel, domain: Domain) -> Compiled:
    """Compile a read model: determine what orders its contributions in this domain."""
    orders = [_order(model, h, domain) for h in model.handlers]
    return Compiled(model, max(orders, key=list(Order).index))


def _order(model: ReadModel, handler: Handler, domain: Domain) -> Order:
    if not (isinstance(model, Fold) or model.deletes or handler.names & _ordered_columns(model)):
        return Order.POSITION
    steps = [domain.registry.upcaster(s) for s in domain.registry.sources(handler.event_type)]
    texts = [rewrite(u.sql(), append={}) for u in steps if u and u.form is Form.SQL]
    matters = isinstance(model, Fold) or model.deletes or handler.names & _ordered_columns(model) - handler.same
    if matters and (handler.sql.multiplies or any(t.multiplies for t in texts)):
        return Order.ROW
    return Order.SPLIT if any(u and u.form is not Form.SQL for u in steps) else Order.POSITION


def _ordered_columns(model: ReadModel) -> frozenset[str]:
    if isinstance(model, Fold):
        return frozenset()
    return model.ordered_columns()


def contributions(compiled: Compiled, events: Events) -> str | None:
    """Return the relation of all contributions: key, columns, ``_at``, ``_handler``, ``_delete``.

    Args:
        compiled: the read model.
        events: returns the relation of an event type.

    Returns:
        SQL, or None if no event contributes.
    """
    model = compiled.model
    parts = []
    for index, handler in enumerate(model.handlers):
        relation = events(handler.event_type)
        if relation is not None:
            parts.append(_contribution(compiled, handler, index, relation))
    return " UNION ALL ".join(parts) if parts else None


def _contribution(compiled: Compiled, handler: Handler, index: int, relation: str) -> str:
    model = compiled.model
    key = [_key(model, handler, name, dtype) for name, dtype in model.key.items()]
    values = [_value(model, handler, name, dtype) for name, dtype in model.contributed.items()]
    selected = ", ".join([*key, *values, f"{_at(compiled)} AS _at", f"{index} AS _handler"])
    delete = f", {str(handler.deletes).lower()} AS _delete" if model.deletes else ""
    rows = f"(WITH event AS (FROM {relation}) SELECT * FROM ({handler.sql.text}))"
    if compiled.order is Order.ROW:
        rows = f"(SELECT *, row_number() OVER () AS _row FROM {rows})"
    return f"SELECT {selected}{delete} FROM {rows}"


def _key(model: ReadModel, handler: Handler, name: str, dtype: str) -> str:
    """Return the expression of a key column; NULL in it is an error of that event, because a key identifies a row."""
    value = with_one_zero(f"CAST({quote(name)} AS {dtype})", dtype)
    if not handler.key_never_null:
        message = literal(f"a key column is NULL (key: {', '.join(model.key)})")
        value = f"CASE WHEN {quote(name)} IS NULL THEN error({message}) ELSE {value} END"
    return f"{value} AS {quote(name)}"


def _at(compiled: Compiled) -> str:
    if compiled.order is Order.POSITION:
        return "_position"
    if compiled.order is Order.SPLIT:
        return f"_position * {_SPLIT_WEIGHT} + _ordinal"
    huge = f"_position::HUGEINT * {_ROW_WEIGHT} + _ordinal::HUGEINT * {_ROW_ORDINAL_WEIGHT} + _row"
    return f"CAST({huge} AS DECIMAL(38,0))"  # Parquet has no HUGEINT: DuckDB writes it as a double


def position_of(compiled: Compiled) -> str:
    """Return the expression of the log position in ``_at``."""
    if compiled.order is Order.ROW:
        return f"CAST(CAST(_at AS HUGEINT) // {_ROW_WEIGHT} AS BIGINT)"
    return f"_at // {_SPLIT_WEIGHT}" if compiled.order is Order.SPLIT else "_at"


def contribution_types(compiled: Compiled) -> dict[str, str]:
    """Return the columns of contributions with their DuckDB types."""
    model = compiled.model
    deletes = {"_delete": "BOOLEAN"} if model.deletes else {}
    return {**model.key, **model.contributed, "_at": _at_type(compiled), "_handler": "INTEGER", **deletes}


def partial_types(compiled: Compiled) -> dict[str, str]:
    """Return the columns of partials with their DuckDB types."""
    types = dict(compiled.model.key)
    for column in _projection(compiled).reduced():
        types |= reducers.partial_types(column, _at_type(compiled))
    return types


def row_types(model: ReadModel) -> dict[str, str]:
    """Return the columns of staged rows with their DuckDB types."""
    types = dict(model.table)
    if isinstance(model, Projection):
        types |= {beyond_column(c.name): "VARCHAR" for c in model.totals()}
        types |= {seen_column(name): f"{model.contributed[name]}[]" for name in model.distinct_columns()}
    return types


def _at_type(compiled: Compiled) -> str:
    return "DECIMAL(38,0)" if compiled.order is Order.ROW else "BIGINT"


def _value(model: ReadModel, handler: Handler, name: str, dtype: str) -> str:
    source = quote(name) if name in handler.names else "NULL"
    reducer = model.columns[name] if isinstance(model, Projection) else None
    if reducer is not None and reducer.kind is Kind.COUNT:  # any type: it needs only whether there is a value
        return f"CASE WHEN {source} IS NOT NULL THEN true END AS {quote(name)}"
    value = f"CAST({source} AS {dtype})"
    if name in handler.names and reducer is not None:
        value = _comparable(reducer.kind, value, dtype)
    return f"{value} AS {quote(name)}"


def _comparable(kind: Kind, value: str, dtype: str) -> str:
    """Return a value whose result does not depend on the order of equal values, or on values that are no numbers."""
    if kind in (Kind.MINIMUM, Kind.MAXIMUM, Kind.COUNT_DISTINCT):
        return with_one_zero(value, dtype)
    if kind is Kind.TOTAL and is_float(dtype):
        return f"CASE WHEN isfinite({value}) THEN {value} WHEN {value} IS NOT NULL THEN error({_NOT_FINITE}) END"
    return value


def partials(compiled: Compiled, source: str) -> str:
    """Return the aggregation of contributions to one partial a key.

    Args:
        compiled: a compiled projection.
        source: a relation of contributions.
    """
    model = _projection(compiled)
    aggregates: dict[str, str] = {}
    for column in model.reduced():
        named_by, never_null = _named_by(model, column.name), _never_null(model, column.name)
        aggregates |= reducers.partial(column, at=_at_type(compiled), named_by=named_by, never_null=never_null)
    selected = ", ".join([compiled.keys, *(f"{sql} AS {quote(c)}" for c, sql in aggregates.items())])
    if not model.deletes:
        return f"SELECT {selected} FROM {source} GROUP BY {compiled.keys}"
    alive = (
        f"SELECT c.* FROM {source} c LEFT JOIN ({deletions(compiled, source)}) d "
        f"ON {same_key(model.key, 'c', 'd')} WHERE NOT c._delete AND (d._deleted_at IS NULL OR c._at > d._deleted_at)"
    )
    return f"SELECT {selected} FROM ({alive}) GROUP BY {compiled.keys}"


def deletions(compiled: Compiled, source: str) -> str:
    """Return the relation of deleted keys, each with the place of its last deletion in the log."""
    return f"SELECT {compiled.keys}, max(_at) AS _deleted_at FROM {source} WHERE _delete GROUP BY {compiled.keys}"


def same_key(key: Mapping[str, str], left: str, right: str) -> str:
    """Return the condition that two relations have the same key."""
    return " AND ".join(f"{left}.{quote(k)} = {right}.{quote(k)}" for k in key)


def _named_by(model: Projection, name: str) -> str | None:
    naming = [i for i, h in enumerate(model.handlers) if name in h.names]
    if len(naming) == sum(not h.deletes for h in model.handlers):
        return None
    return f"_handler IN ({', '.join(map(str, naming))})" if naming else "false"


def _never_null(model: Projection, name: str) -> bool:
    return all(name in h.never_null for h in model.handlers if name in h.names)


def combined(compiled: Compiled, source: str) -> str:
    """Return the aggregation of partials of several buckets to one partial a key."""
    aggregates: dict[str, str] = {}
    for column in _projection(compiled).reduced():
        aggregates |= reducers.combine(column, at=_at_type(compiled))
    selected = ", ".join([compiled.keys, *(f"{sql} AS {quote(c)}" for c, sql in aggregates.items())])
    return f"SELECT {selected} FROM {source} GROUP BY {compiled.keys}"


def seen_column(name: str) -> str:
    """Return the staged column that holds the distinct values of a ``count_distinct``."""
    return f"_seen_{name}"


def beyond_column(name: str) -> str:
    """Return the staged column that holds a total as text, in rows where its own column's type cannot."""
    return f"_beyond_{name}"


def rows(compiled: Compiled, source: str) -> str:
    """Return the rows of the table over partials, with totals that do not fit and the values of distinct counts."""
    model = _projection(compiled)
    values = [f"{reducers.final(column)} AS {quote(column.name)}" for column in model.reduced()]
    beyond = [_beyond(column) for column in model.totals()]
    seen = [f"{quote(name)} AS {quote(seen_column(name))}" for name in model.distinct_columns()]
    return f"SELECT {', '.join([compiled.keys, *values, *beyond, *seen])} FROM ({source})"


def _beyond(column: Column) -> str:
    declared, sum_ = str(column.reducer.type), quote(column.name)
    total = totals.exact(sum_, declared, wide=column.wide)
    text = f"CAST({total} AS VARCHAR)"
    return f"CASE WHEN {reducers.final(column)} IS NULL THEN {text} END AS {quote(beyond_column(column.name))}"


def _projection(compiled: Compiled) -> Projection:
    assert isinstance(compiled.model, Projection), "a fold has no partials"
    return compiled.model


def is_fold(compiled: Compiled) -> bool:
    """Check whether the model is a Python fold."""
    return isinstance(compiled.model, Fold)
