"""Declarations of read models: values, checked when they are made.

``Projection``
    per event type a ``SELECT`` of contributions; per column a reducer that combines them.
``Fold``
    a Python function from (state, event) to state, for what no reducer can express.
``View``
    SQL over other read models of the same generation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from refold.event_schemas import ProjectionError, is_event
from refold.event_schemas.names import first_double
from refold.warehouse.declarations import column_types
from refold.warehouse.declarations.code_identity.identity import DeclaredCode
from refold.warehouse.declarations.declared_names import also, check_column_names, check_table_name
from refold.warehouse.declarations.derived import check_derived, generated_column, stored_type
from refold.warehouse.declarations.determinism import check_plan, check_repeatable
from refold.warehouse.declarations.handlers import (
    Delete,
    Handler,
    check_order,
    compile_handler,
    event_columns,
)
from refold.warehouse.declarations.reader_settings import (
    check_binding,
    check_divisors,
    check_reader_settings,
    with_explicit_order,
)
from refold.warehouse.declarations.reducers import Column, Kind, Reducer
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.duckdb_types import Type, keeps_values, resolve
from refold.warehouse.engine.sql import SqlError, first_line, quote

State = dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """A read model in SQL.

    Args:
        name: the table.
        key: key column to DuckDB type.
        columns: column to reducer (``total``, ``count``, ``minimum``, ``maximum``, ``first``, ``latest``,
            ``collect``, ``count_distinct``).
        on: event class to a ``SELECT`` over the relation ``event`` (``FROM event`` may be left out), whose columns are
            the fields of the payload and of the envelope. It must yield every key column, and may yield any of the
            columns; the others stay as they are. ``WHERE`` and ``unnest`` work. ``Delete("SELECT ...")`` removes the
            row.
        derived: further column to an SQL expression over the row, computed when it is read.
        seed: a query over the tables and views of the newest generation that yields the key and every column. The
            rows then have the position of that generation, and only later events are replayed. A projection with a
            ``count_distinct`` cannot have one, because the values seen before are unknown.

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
    contributed: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_names(self.name, self.key, self.columns, self.on, tuple(self.derived))
        column_types.check_key(self.name, self.key)
        column_types.check_columns(self.name, self.columns)
        _check_seed(self.name, self.seed, self.distinct_columns())
        wanted = {c: r.type for c, r in self.columns.items()}
        handlers = tuple(compile_handler(self.name, self.key, wanted, cls, on) for cls, on in self.on.items())
        object.__setattr__(self, "handlers", handlers)
        for handler in handlers:
            check_order(self.name, handler, handler.names & self.ordered_columns() - handler.same)
        object.__setattr__(self, "contributed", column_types.contributed_types(self.name, self.columns, handlers))
        check_derived(f"Read model {self.name}", self.table, self.derived)

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

    def reduced(self) -> list[Column]:
        """Return its columns, as their SQL needs them."""
        return [
            Column(name, reducer, self.contributed[name], column_types.is_wide_total(name, reducer, self.handlers))
            for name, reducer in self.columns.items()
        ]

    def totals(self) -> list[Column]:
        """Return the columns that are totals."""
        return [column for column in self.reduced() if column.reducer.kind is Kind.TOTAL]

    def ordered_columns(self) -> frozenset[str]:
        """Columns whose value depends on the order of contributions."""
        return frozenset(n for n, r in self.columns.items() if r.ordered or r.kind is Kind.COLLECT)

    def distinct_columns(self) -> tuple[str, ...]:
        """Columns whose distinct values are kept in a separate table."""
        return tuple(c for c, r in self.columns.items() if r.kind is Kind.COUNT_DISTINCT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A read model as a Python fold, for values that depend on the path and not only on sums.

    A fold takes about 2 to 4 microseconds an event, some 20 times as long as a ``Projection``. Keys are independent of
    one another, so it runs on as many processes as the runner has.

    Args:
        name: the table.
        key: key column to DuckDB type.
        columns: column to DuckDB type; the state is a dict of these columns.
        on: event class to a ``SELECT`` over ``event`` that yields every key column and what the fold needs.
        fold: ``fold(state, event) -> state``, called in position order within a key. ``state`` is a dict of
            ``columns``, or None at the start; it may be changed in place. ``event`` is a named tuple of the SELECT's
            columns without the key, with ``event_type`` as attribute. None removes the row.
        seed: a query over the tables and views of the newest generation that yields the key and every column: the
            states to continue from, so that only later events are folded.
        version: stands for what ``fold`` depends on and refold cannot see, such as a file; change it with every change
            of that.

    Attributes:
        event_columns: column of the events to its DuckDB type, which is the same for all event types.

    Raises:
        ProjectionError: naming the read model, the event and the column, or what the fold depends on that cannot be
            seen.
    """

    name: str
    key: Mapping[str, str]
    columns: Mapping[str, str]
    on: Mapping[type, str]
    fold: Callable[[Any, Any], State]
    seed: str | None = None
    version: str | None = None
    handlers: tuple[Handler, ...] = field(init=False, repr=False, compare=False)
    event_columns: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_names(self.name, self.key, self.columns, self.on, ())
        if not callable(self.fold):
            raise ProjectionError(f"Fold {self.name}: fold= must be a function of (state, event).")
        column_types.check_key(self.name, self.key)
        column_types.check_states(self.name, self.columns)
        _check_seed(self.name, self.seed, ())
        handlers = tuple(compile_handler(self.name, self.key, None, cls, on) for cls, on in self.on.items())
        object.__setattr__(self, "handlers", handlers)
        object.__setattr__(self, "event_columns", event_columns(self.name, handlers))
        for column, dtype in self.event_columns.items():
            column_types.check_in_python(f"Fold {self.name}, column {column}", dtype)
        for handler in handlers:
            check_order(self.name, handler, {"the state"})
        code_of(self).check()

    @property
    def event_types(self) -> tuple[str, ...]:
        """The event types that it reads."""
        return tuple(h.event_type for h in self.handlers)

    @property
    def contributed(self) -> Mapping[str, str]:
        """The columns of contributions with their DuckDB types."""
        return self.event_columns

    @property
    def deletes(self) -> bool:
        """Whether a handler removes rows: never, since a fold returns None for that."""
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


def code_of(model: Fold) -> DeclaredCode:
    """Return a fold's code."""
    return DeclaredCode(f"Fold {model.name}", model.fold, model.version, ProjectionError)


def keyed_by_stream(model: ReadModel) -> bool:
    """Check whether all events of a key are in one stream, and so in one bucket."""
    return any(all(k in h.by_stream for h in model.handlers) for k in model.key)


def create_table_sql(model: ReadModel) -> str:
    """Return the statement that creates a read model's empty table."""
    typed = [f"{quote(c)} {stored_type(t)}" for c, t in model.table.items()]
    derived = model.derived.items() if isinstance(model, Projection) else ()
    typed += [f"{quote(c)} AS ({generated_column(expression, model.table)})" for c, expression in derived]
    return f"CREATE TABLE {quote(model.name)} ({', '.join(typed)})"


def _check_names(
    name: str,
    key: Mapping[str, str],
    columns: Mapping[str, Any],
    on: Mapping[type, str | Delete],
    derived: Sequence[str],
) -> None:
    check_table_name("Read model", name)
    if not key:
        raise ProjectionError(f"Read model {name}: key= is empty; name at least one key column.")
    if not on:
        raise ProjectionError(f"Read model {name}: on= is empty; name at least one event.")
    check_column_names(f"Read model {name}", (*key, *columns), derived)
    for cls in on:
        if not is_event(cls):
            raise ProjectionError(f"Read model {name}: {cls!r} in on= is not an event class. Decorate it with @event.")


def _check_seed(name: str, seed: str | None, distinct: tuple[str, ...]) -> None:
    if seed is None:
        return
    if distinct:
        raise ProjectionError(
            f"Read model {name}, column {distinct[0]}: a count_distinct cannot start from a seed, because the values "
            "seen before are unknown. Remove seed= or the column."
        )
    try:
        check_repeatable(seed)
    except SqlError as error:
        raise ProjectionError(f"Read model {name}, seed: {first_line(error)}") from error


def check_seed_columns(model: ReadModel, found: Mapping[str, Type]) -> None:
    """Check that a seed yields exactly the columns of its read model, in types that convert without a change of value.

    Raises:
        ProjectionError: naming the read model and the column.
    """
    where = f"Read model {model.name}, seed"
    if missing := [c for c in model.table if c not in found]:
        raise ProjectionError(
            f"{where}: the query does not yield column {missing[0]!r}; it yields {list(found)}. A seed must yield the "
            "key and every column, because earlier events are not replayed."
        )
    if beyond := [c for c in found if c not in model.table]:
        raise ProjectionError(f"{where}: column {beyond[0]!r} is not declared; declared are {list(model.table)}.")
    for column, declared in model.table.items():
        dtype = found[column]
        if not keeps_values(dtype, resolve(declared)):
            raise ProjectionError(
                f"{where}, column {column}: the query yields {dtype}, declared is {declared}. The conversion would "
                "change values: cast it in the query, or declare another type."
            )


def create_view(view: View, connection: duckdb.DuckDBPyConnection) -> None:
    """Create a view on a connection that holds the tables it reads.

    Its ORDER BY clauses are written out, because a reader's DuckDB may have other defaults than refold's.

    Raises:
        ProjectionError: it does not bind there.
    """
    try:
        connection.execute(f"CREATE OR REPLACE VIEW {quote(view.name)} AS {with_explicit_order(view.select)}")
    except (SqlError, duckdb.Error) as error:
        raise ProjectionError(f"View {view.name}: {first_line(error)}") from error


def check_created_view(view: View, connection: duckdb.DuckDBPyConnection) -> None:
    """Check that a created view is bound alike in the session of every reader.

    Raises:
        ProjectionError: naming the view and the setting.
    """
    try:
        check_binding(connection, f"FROM {quote(view.name)}")
    except SqlError as error:
        raise ProjectionError(f"View {view.name}: {error}") from error


def check_view(view: View, connection: duckdb.DuckDBPyConnection, tables: Collection[str]) -> None:
    """Check that a view gives the same rows each time, to every reader.

    Args:
        view: the view.
        connection: a connection that holds empty tables and the views before it.
        tables: the tables and views that it may read.

    Raises:
        ProjectionError: naming the view and what it must not use.
    """
    check_table_name("View", view.name)
    try:
        check_repeatable(view.select, tables)
        columns = connection.sql(view.select).columns
        plan = bound_plan(connection, view.select)
        check_plan(plan, tables=tables)
        check_reader_settings(plan)
        check_divisors(view.select)
    except (SqlError, duckdb.Error) as error:
        raise ProjectionError(f"View {view.name}: {first_line(error)}") from error
    if double := first_double(columns):
        raise ProjectionError(
            f"View {view.name}: two columns are named {double[1]!r}{also(*double)}. Rename one of them."
        )
