"""Declarations of read models: values, validated when they are made.

``Projection``
    per event type a ``SELECT`` of contributions; per column a reducer that combines them.
``Fold``
    the escape hatch: any Python function from (state, event) to state, for what no reducer can say.
``View``
    SQL over other read models of the same generation.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from refold.event_schemas import (
    ENVELOPE,
    ProjectionError,
    event_type_of,
    is_event,
    schema_of,
)
from refold.event_schemas.envelope import ENVELOPE_NAMES
from refold.warehouse.declarations.determinism import check_one_event, check_repeatable
from refold.warehouse.declarations.reducers import Kind, Reducer
from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError, empty_relation, first_line, quote, result_schema, same_value
from refold.warehouse.engine.syntax_tree import Rewritten, rewrite

State = dict[str, Any] | None
_UNTYPED = '"NULL"'


@dataclass(frozen=True, slots=True)
class Delete:
    """A handler that removes the row whose key its ``SELECT`` names; later events may make it anew.

    Example:
        >>> Delete("SELECT stream_id AS order_id").select
        'SELECT stream_id AS order_id'
    """

    select: str


@dataclass(frozen=True, slots=True)
class Handler:
    """What one event type does to one read model, compiled.

    Attributes:
        event_class: the contract that the SQL reads.
        sql: the user's SELECT with ``_position`` and ``_ordinal`` appended.
        deletes: whether it removes the row.
        names: the columns it contributes to.
        never_null: those of them that it can never set to NULL.
        key_never_null: whether no key column can be NULL.
        same: the columns that have one value in all rows which one event yields.
    """

    event_class: type
    sql: Rewritten
    deletes: bool
    names: frozenset[str]
    never_null: frozenset[str]
    key_never_null: bool
    same: frozenset[str]

    @property
    def event_type(self) -> str:
        """The event type's name."""
        return event_type_of(self.event_class)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A read model in SQL.

    Args:
        name: the table.
        key: key column to DuckDB type.
        columns: column to reducer (``total``, ``count``, ``minimum``, ``maximum``, ``first``, ``latest``,
            ``collect``, ``count_distinct``).
        on: event class to a ``SELECT`` over the relation ``event`` (``FROM event`` may be left out) whose columns are
            the payload's fields and the envelope's. It must name every key column, and may name any columns: those
            it does not name it leaves alone. ``WHERE`` and ``unnest`` work. ``Delete("SELECT ...")`` removes the row.
        derived: further column to an SQL expression over the row, computed when it is read.
        seed: a query over the tables and views of the newest generation that yields the key and every column. The
            rows then stand where that generation stands, and only later events are replayed. Not for
            ``count_distinct``, since what was seen before cannot be known.

    Raises:
        ProjectionError: naming the projection, the event and the column.

    Example:
        >>> from refold.event_schemas import event
        >>> from refold.warehouse.declarations.reducers import count
        >>> @event(schema_version=1)
        ... class PageViewed:
        ...     path: str
        >>> VIEWS = Projection(name="views", key={"path": "VARCHAR"}, columns={"views": count()},
        ...                    on={PageViewed: "SELECT path, 1 AS views"})
        >>> VIEWS.event_types
        ('PageViewed',)
    """

    name: str
    key: Mapping[str, str]
    columns: Mapping[str, Reducer]
    on: Mapping[type, str | Delete]
    derived: Mapping[str, str] = field(default_factory=dict)
    seed: str | None = None
    handlers: tuple[Handler, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_names(self.name, self.key, self.columns, self.on)
        _check_types(self.name, self.table)
        _check_totals(self.name, self.columns)
        _check_seed(self.name, self.seed, self.distinct_columns())
        wanted = {c: r.type for c, r in self.columns.items()}
        handlers = tuple(_compile(self.name, self.key, wanted, cls, on) for cls, on in self.on.items())
        object.__setattr__(self, "handlers", handlers)
        for handler in handlers:
            _check_order(self.name, handler, handler.names & self.ordered_columns() - handler.same)
        _check_derived(self)

    @property
    def event_types(self) -> tuple[str, ...]:
        """The event types that it reads."""
        return tuple(h.event_type for h in self.handlers)

    @property
    def deletes(self) -> bool:
        """Whether any handler removes rows."""
        return any(h.deletes for h in self.handlers)

    @property
    def table(self) -> dict[str, str]:
        """Every column of the published table with its DuckDB type, the key first."""
        return {**self.key, **{c: r.column_type for c, r in self.columns.items()}}

    def ordered_columns(self) -> frozenset[str]:
        """Columns whose value depends on the order of contributions."""
        return frozenset(n for n, r in self.columns.items() if r.ordered or r.kind is Kind.COLLECT)

    def distinct_columns(self) -> tuple[str, ...]:
        """Columns whose values seen are kept in a table of their own."""
        return tuple(c for c, r in self.columns.items() if r.kind is Kind.COUNT_DISTINCT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A read model as a Python fold, for what depends on the path and not only on sums.

    It costs about 2 to 4 microseconds an event in pure Python, some 20 times a ``Projection``; it runs on as many
    processes as the runner has, since keys are independent of one another.

    Args:
        name: the table.
        key: key column to DuckDB type.
        columns: column to DuckDB type: the state, which is a dict of these columns.
        on: event class to a ``SELECT`` over ``event`` that names every key column and what the fold needs.
        fold: ``fold(state, event) -> state``, called in position order within a key. ``state`` is a dict of
            ``columns``, or None at the start (it may be changed in place). ``event`` is a named tuple of the
            SELECT's columns without the key, with ``event_type`` as attribute. None removes the row.
        seed: a query over the tables and views of the newest generation that yields the key and every column: the
            states to go on from, so that only later events are folded.

    Attributes:
        event_columns: column that events have to its DuckDB type, the same whichever event names it.

    Raises:
        ProjectionError: naming the read model, the event and the column.
    """

    name: str
    key: Mapping[str, str]
    columns: Mapping[str, str]
    on: Mapping[type, str]
    fold: Callable[[Any, Any], State]
    seed: str | None = None
    handlers: tuple[Handler, ...] = field(init=False, repr=False, compare=False)
    event_columns: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_names(self.name, self.key, self.columns, self.on)
        if not callable(self.fold):
            raise ProjectionError(f"Fold {self.name}: fold= is no function of (state, event).")
        _check_types(self.name, self.table)
        _check_seed(self.name, self.seed, ())
        handlers = tuple(_compile(self.name, self.key, None, cls, on) for cls, on in self.on.items())
        object.__setattr__(self, "handlers", handlers)
        object.__setattr__(self, "event_columns", _event_columns(self.name, handlers))
        for handler in handlers:
            _check_order(self.name, handler, {"the state"})

    @property
    def event_types(self) -> tuple[str, ...]:
        """The event types that it reads."""
        return tuple(h.event_type for h in self.handlers)

    @property
    def deletes(self) -> bool:
        """Whether it removes rows by a handler: a fold does so by returning None."""
        return False

    @property
    def table(self) -> dict[str, str]:
        """Every column of the published table with its DuckDB type, the key first."""
        return {**self.key, **self.columns}


@dataclass(frozen=True, slots=True)
class View:
    """SQL over the read models of one generation, published with them.

    Args:
        name: the view.
        select: one SELECT over tables and earlier views of the domain.
    """

    name: str
    select: str


ReadModel = Projection | Fold


def keyed_by_stream(model: ReadModel) -> bool:
    """Tell whether all events of a key lie in one stream, hence in one bucket."""
    return any(all(h.sql.plain.get(k) == "stream_id" for h in model.handlers) for k in model.key)


def create_table_sql(model: ReadModel) -> str:
    """Write the statement that makes a read model's empty table."""
    typed = [f"{quote(c)} {t}" for c, t in model.table.items()]
    derived = model.derived.items() if isinstance(model, Projection) else ()
    typed += [f"{quote(c)} AS ({expression})" for c, expression in derived]
    return f"CREATE TABLE {quote(model.name)} ({', '.join(typed)})"


def _check_names(
    name: str, key: Mapping[str, str], columns: Mapping[str, Any], on: Mapping[type, str | Delete]
) -> None:
    if not name.isidentifier():
        raise ProjectionError(f"Projection {name!r}: the name must be an identifier, since it names a table.")
    if not key:
        raise ProjectionError(f"Projection {name}: key= is empty; name at least one key column.")
    if not on:
        raise ProjectionError(f"Projection {name}: on= is empty; name at least one event.")
    for column in (*key, *columns):
        if column.startswith("_"):
            raise ProjectionError(f"Projection {name}, column {column}: a leading underscore is reserved.")
    folded = [c.lower() for c in (*key, *columns)]
    if double := {c for c in folded if folded.count(c) > 1}:
        raise ProjectionError(f"Projection {name}: column {sorted(double)[0]!r} is declared twice.")
    for cls in on:
        if not is_event(cls):
            raise ProjectionError(f"Projection {name}: {cls!r} in on= is no event class.")


def _check_types(name: str, table: Mapping[str, str]) -> None:
    for column, declared in table.items():
        arrow_type(declared, where=f"Projection {name}, column {column}")


def _check_totals(name: str, columns: Mapping[str, Reducer]) -> None:
    for column, reducer in columns.items():
        if reducer.kind is Kind.TOTAL:
            try:
                scratch().sql(f"SELECT sum(NULL::{reducer.type})")
            except duckdb.Error as error:
                raise ProjectionError(
                    f"Projection {name}, column {column}: a total of {reducer.type} cannot be added up; use an "
                    "integer or a DECIMAL."
                ) from error


def _check_seed(name: str, seed: str | None, distinct: tuple[str, ...]) -> None:
    if seed is None:
        return
    if distinct:
        raise ProjectionError(
            f"Projection {name}, column {distinct[0]}: a count_distinct cannot start from a seed, since the values "
            "that were seen before are not known. Leave out seed=, or the column."
        )
    try:
        check_repeatable(seed)
    except SqlError as error:
        raise ProjectionError(f"Projection {name}, seed: {first_line(error)}") from error


def check_seed_columns(model: ReadModel, found: pa.Schema) -> None:
    """Make sure that a seed yields exactly the columns of its read model, in types that hold the values unchanged.

    Raises:
        ProjectionError: naming the read model and the column.
    """
    where = f"Projection {model.name}, seed"
    if missing := [c for c in model.table if c not in found.names]:
        raise ProjectionError(
            f"{where}: the query does not yield column {missing[0]!r}; it has {found.names}. A seed must give the key "
            "and every column, since the events before it are not replayed."
        )
    if beyond := [c for c in found.names if c not in model.table]:
        raise ProjectionError(f"{where}: column {beyond[0]!r} is not declared; declared are {list(model.table)}.")
    for column, declared in model.table.items():
        wanted = arrow_type(declared, where=f"{where}, column {column}")
        dtype = found.field(found.get_field_index(column)).type
        if not same_value(dtype, wanted):
            raise ProjectionError(
                f"{where}, column {column}: the query yields {dtype}, declared is {declared}. A value would be changed "
                "on the way: cast it in the query, or declare another type."
            )


def _check_derived(model: Projection) -> None:
    typed = ", ".join(f"NULL::{t} AS {quote(c)}" for c, t in model.table.items())
    for column, expression in model.derived.items():
        where = f"Projection {model.name}, derived column {column}"
        if column in model.table:
            raise ProjectionError(f"{where}: the name is taken by another column.")
        try:
            scratch().sql(f"SELECT {expression} FROM (SELECT {typed})")
        except duckdb.Error as error:
            raise ProjectionError(f"{where}: {first_line(error)}") from error


def _compile(
    name: str, key: Mapping[str, str], columns: Mapping[str, str | None] | None, cls: type, on: str | Delete
) -> Handler:
    """Bind one handler against an empty table of its event; ``columns`` None allows any (a fold's)."""
    where = f"Projection {name}, event {event_type_of(cls)}"
    deletes = isinstance(on, Delete)
    select = on.select if isinstance(on, Delete) else on
    payload = schema_of(cls)
    try:
        check_one_event(select)
        sql = rewrite(select, append={"_position": "position", "_ordinal": "_ordinal"})
        found = _bind(sql.text, payload)
    except (SqlError, duckdb.Error) as error:
        raise ProjectionError(f"{where}: {first_line(error)}") from error
    outputs = {f.name: f.type for f in found if not f.name.startswith("_")}
    _check_outputs(where, outputs, key, columns, deletes=deletes)
    required = {f.name for f in (*payload, *ENVELOPE) if not f.nullable}
    never_null = sql.nonnull | {o for o, source in sql.plain.items() if source in required}
    names = frozenset(outputs) - set(key)
    same = frozenset(o for o, source in sql.plain.items() if source in ENVELOPE_NAMES) | sql.nonnull
    return Handler(cls, sql, deletes, names, frozenset(never_null) & names, set(key) <= never_null, same & names)


def _check_order(name: str, handler: Handler, ordered: Collection[str]) -> None:
    if ordered and handler.sql.unordered:
        raise ProjectionError(
            f"Projection {name}, event {handler.event_type}: {min(ordered)} depends on the order of rows, but those "
            "that this SELECT makes of one event have none, since DuckDB joins them by hash. Unnest in a select list: "
            "SELECT ... FROM (SELECT *, unnest(...) AS line FROM event)."
        )


def _bind(text: str, payload: pa.Schema) -> pa.Schema:
    return result_schema(scratch(), _bound(text, payload))


def _bound(text: str, payload: pa.Schema) -> str:
    relation = empty_relation(pa.schema([*ENVELOPE, pa.field("_ordinal", pa.int64()), *payload]))
    return f"WITH event AS {relation} SELECT * FROM ({text})"


def _event_columns(name: str, handlers: tuple[Handler, ...]) -> dict[str, str]:
    """Find the one type of each column of a fold's events, which must not depend on what other events are about."""
    found: dict[str, list[tuple[str, str]]] = {}
    for handler in handlers:
        for column, dtype in _described(_bound(handler.sql.text, schema_of(handler.event_class))).items():
            if column in handler.names:
                found.setdefault(column, []).append((handler.event_type, dtype))
    columns = {}
    for column, typed in sorted(found.items()):
        where = f"Fold {name}, column {column}"
        if not column.isidentifier() or keyword.iskeyword(column):
            raise ProjectionError(f"{where}: the name is none that Python can write after `event.`; name it otherwise.")
        typed = [(event_type, dtype) for event_type, dtype in typed if dtype != _UNTYPED] or [("", "INTEGER")]
        columns[column] = _described(" UNION ALL ".join(f"SELECT NULL::{dtype} AS x" for _, dtype in typed))["x"]
        for _, dtype in typed:
            if not same_value(arrow_type(dtype, where=where), arrow_type(columns[column], where=where)):
                told = ", ".join(f"{t} from {e}" for e, t in typed)
                raise ProjectionError(f"{where}: events bring different types ({told}). Cast them to one.")
    return columns


def _described(select: str) -> dict[str, str]:
    return {row[0]: row[1] for row in scratch().execute(f"DESCRIBE {select}").fetchall()}


def _check_outputs(
    where: str,
    outputs: Mapping[str, pa.DataType],
    key: Mapping[str, str],
    columns: Mapping[str, str | None] | None,
    *,
    deletes: bool,
) -> None:
    for column in key:
        if column not in outputs:
            raise ProjectionError(f"{where}: the SELECT does not name key column {column!r}; it has {list(outputs)}.")
    allowed: dict[str, str | None] = {**key, **(columns or {})}
    for column, dtype in outputs.items():
        if column not in allowed and columns is not None:
            raise ProjectionError(f"{where}: column {column!r} is not declared; declared are {list(allowed)}.")
        if deletes and column not in key:
            raise ProjectionError(f"{where}: a delete names key columns only, not {column!r}.")
        declared = allowed.get(column)
        if declared is not None and not same_value(dtype, arrow_type(declared, where=f"{where}, column {column}")):
            raise ProjectionError(
                f"{where}, column {column}: the SELECT yields {dtype}, declared is {declared}. A value would be "
                "changed on the way: cast it in the SELECT, or declare another type."
            )


def arrow_type(duckdb_type: str, *, where: str) -> pa.DataType:
    """Give the Arrow type of a DuckDB type, or say that there is none."""
    try:
        return result_schema(scratch(), f"SELECT NULL::{duckdb_type} AS x").field("x").type
    except duckdb.Error as error:
        raise ProjectionError(f"{where}: {duckdb_type!r} is no DuckDB type: {first_line(error)}") from error


def view_binds(view: View, connection: duckdb.DuckDBPyConnection) -> None:
    """Create a view on a connection that holds the tables it reads.

    Raises:
        ProjectionError: it does not bind there.
    """
    try:
        connection.execute(f"CREATE OR REPLACE VIEW {quote(view.name)} AS {view.select}")
    except duckdb.Error as error:
        raise ProjectionError(f"View {view.name}: {first_line(error)}") from error
