"""Handlers: what one event type contributes to one read model, compiled from the user's ``SELECT`` and checked."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from refold.event_schemas import ENVELOPE, ProjectionError, event_type_of, schema_of
from refold.event_schemas.envelope import ENVELOPE_NAMES
from refold.event_schemas.names import first_double
from refold.warehouse.declarations.determinism import check_collations, check_one_event, check_plan
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.duckdb_types import Type, keeps_values, resolve, types_of
from refold.warehouse.engine.lineage import Origin, Origins, output_origins, subquery_names
from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError, empty_relation, first_line, result_schema
from refold.warehouse.engine.syntax_tree import Rewritten, rewrite
from refold.warehouse.engine.types import resolved_type

_APPENDED = {"_position": "position", "_ordinal": "_ordinal"}
"""Column that refold adds to every handler, to the column of ``event`` that it holds."""

_UNTYPED = '"NULL"'
"""How DuckDB writes the type of a bare NULL."""


@dataclass(frozen=True, slots=True)
class Delete:
    """A handler that removes the row whose key its ``SELECT`` names. A later event may create the row again.

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
        by_stream: the key columns that hold the stream's id.
        names: the columns that it contributes to.
        never_null: those of them that it can never set to NULL.
        key_never_null: whether no key column can be NULL.
        same: the columns that have the same value in all rows of one event.
        types: the columns of the SELECT with their DuckDB types.
    """

    event_class: type
    sql: Rewritten
    deletes: bool
    by_stream: frozenset[str]
    names: frozenset[str]
    never_null: frozenset[str]
    key_never_null: bool
    same: frozenset[str]
    types: Mapping[str, str]

    @property
    def event_type(self) -> str:
        """The event type's name."""
        return event_type_of(self.event_class)


def compile_handler(
    model: str, key: Mapping[str, str], columns: Mapping[str, str | None] | None, cls: type, on: str | Delete
) -> Handler:
    """Bind one handler against an empty table of its event.

    Args:
        model: the read model's name.
        key: key column to DuckDB type.
        columns: column to DuckDB type, None for any; ``columns`` itself is None if any column is allowed (a fold's).
        cls: the event class.
        on: the handler as declared.

    Raises:
        ProjectionError: naming the read model, the event and the column.
    """
    where = f"Read model {model}, event {event_type_of(cls)}"
    deletes = isinstance(on, Delete)
    select = on.select if isinstance(on, Delete) else on
    payload = schema_of(cls)
    try:
        check_one_event(select)
        sql = rewrite(select, append=_APPENDED)
        query = _over_empty_events(sql.text, payload)
        found = bind_over_event(query)
        plan = bound_plan(scratch(), query)
        check_plan(plan, tables=(), of_event=True)
        check_collations(plan)
        origins = dict(zip(found.names, output_origins(plan, "event"), strict=True))
        _check_appended(subquery_names(plan), origins)
    except (SqlError, duckdb.Error) as error:
        raise ProjectionError(f"{where}: {first_line(error)}") from error
    outputs = {name: dtype for name, dtype in types_of(scratch(), query).items() if name not in _APPENDED}
    _check_outputs(where, outputs, key, columns, deletes=deletes)
    kept = {name: origins[name] for name in outputs}
    types = {name: str(dtype) for name, dtype in outputs.items()}
    return _handler(cls, sql, kept, key, types, deletes=deletes)


def _handler(
    cls: type,
    sql: Rewritten,
    origins: Mapping[str, Origins],
    key: Mapping[str, str],
    types: Mapping[str, str],
    *,
    deletes: bool,
) -> Handler:
    """Conclude from the origins of a handler's columns what is certain about their values."""
    required: set[str | None] = {None, *(f.name for f in (*schema_of(cls), *ENVELOPE) if not f.nullable)}
    of_envelope: set[str | None] = {None, *ENVELOPE_NAMES}
    single = {name: next(iter(found)) for name, found in origins.items() if len(found) == 1}
    names = frozenset(origins) - set(key)
    never_null = {name for name, found in origins.items() if all(o is not None and o.column in required for o in found)}
    return Handler(
        event_class=cls,
        sql=sql,
        deletes=deletes,
        by_stream=frozenset(n for n, origin in single.items() if origin == Origin("stream_id") and n in key),
        names=names,
        never_null=names & never_null,
        key_never_null=set(key) <= never_null,
        same=names & {n for n, origin in single.items() if origin is not None and origin.column in of_envelope},
        types=types,
    )


def bind_over_event(query: str) -> pa.Schema:
    """Bind a statement over ``event``, and return the schema of its result.

    Raises:
        SqlError: a subquery leaves out a column that refold adds to the outer select list.
        duckdb.Error: it does not bind.
    """
    try:
        return result_schema(scratch(), query)
    except duckdb.BinderException as error:
        if any(f'"{name}"' in str(error).splitlines()[0] for name in _APPENDED.values()):
            raise SqlError(
                f"{first_line(error)} refold adds the place of the event in the log to the select list, so a subquery "
                "must keep it: begin with SELECT *, as in FROM (SELECT *, unnest(lines) AS line FROM event). With an "
                "aggregate, group by position"
            ) from error
        raise


def _check_appended(names: list[str], origins: Mapping[str, Origins]) -> None:
    """Check the names of a handler's columns, and that those which refold appends hold what they say."""
    if double := first_double(name for name in names if name):
        raise SqlError(
            f"the SELECT yields two columns {double[0]!r} and {double[1]!r}, and SQL ignores case; rename one"
        )
    for output, source in _APPENDED.items():
        if origins.get(output) != frozenset({Origin(source)}):
            raise SqlError(
                f"the SELECT yields no `{source}` of the event: it is hidden by another column or an outer join; keep "
                "it in each subquery, and give its name to no other column"
            )


def check_order(model: str, handler: Handler, ordered: Collection[str]) -> None:
    """Check that the rows of one event have an order where a value depends on it.

    Args:
        model: the read model's name.
        handler: the handler.
        ordered: what depends on the order of rows; empty if nothing does.

    Raises:
        ProjectionError: the rows have no order.
    """
    if ordered and handler.sql.unordered:
        raise ProjectionError(
            f"Read model {model}, event {handler.event_type}: {min(ordered)} depends on the order of rows, but those "
            "that this SELECT makes of one event have none, because DuckDB joins them by hash. Unnest in a select "
            "list: SELECT ... FROM (SELECT *, unnest(...) AS line FROM event)."
        )


def event_columns(fold: str, handlers: Collection[Handler]) -> dict[str, str]:
    """Return the DuckDB type of each column of a fold's events.

    A column has one type, whichever events a unit or an increment holds.

    Raises:
        ProjectionError: the handlers yield types that do not convert, or a name that Python cannot write.
    """
    found: dict[str, str] = {}
    for column in sorted({name for handler in handlers for name in handler.names}):
        where = f"Fold {fold}, column {column}"
        if not column.isidentifier() or keyword.iskeyword(column):
            raise ProjectionError(f"{where}: Python cannot write this name after `event.`; choose another one.")
        found[column] = common_type(where, [(h.event_type, h.types[column]) for h in handlers if column in h.names])
    return found


def common_type(where: str, found: list[tuple[str, str]]) -> str:
    """Return one DuckDB type for a column that several event types yield.

    Args:
        where: begins an error message.
        found: event type and the DuckDB type that its handler yields.

    Raises:
        ProjectionError: the types do not convert without a change of values, or are not supported.
    """
    typed = [(event_type, dtype) for event_type, dtype in found if dtype != _UNTYPED] or [("", "INTEGER")]
    union = " UNION ALL ".join(f"SELECT CAST(NULL AS {dtype}) AS x" for _, dtype in typed)
    common = types_of(scratch(), union)["x"]
    for _, dtype in typed:
        if not keeps_values(types_of(scratch(), f"SELECT NULL::{dtype} AS x")["x"], common):
            types = ", ".join(f"{t} from {e}" for e, t in typed)
            raise ProjectionError(f"{where}: events yield different types ({types}). Cast them to one type.")
    try:
        return str(resolve(str(common)))
    except SqlError as error:
        raise ProjectionError(f"{where}: {error}") from error


def arrow_type(duckdb_type: str, *, where: str) -> pa.DataType:
    """Return the Arrow type of a DuckDB type.

    Raises:
        ProjectionError: DuckDB has no such type; the message starts with ``where``.
    """
    try:
        return result_schema(scratch(), f"SELECT CAST(NULL AS {resolved_type(duckdb_type)}) AS x").field("x").type
    except (SqlError, duckdb.Error) as error:
        raise ProjectionError(f"{where}: {first_line(error)}") from error


def _over_empty_events(text: str, payload: pa.Schema) -> str:
    relation = empty_relation(pa.schema([*ENVELOPE, pa.field("_ordinal", pa.int64()), *payload]))
    return f"WITH event AS MATERIALIZED {relation} SELECT * FROM ({text})"


def _check_outputs(
    where: str,
    outputs: Mapping[str, Type],
    key: Mapping[str, str],
    columns: Mapping[str, str | None] | None,
    *,
    deletes: bool,
) -> None:
    for column in key:
        if column not in outputs:
            raise ProjectionError(
                f"{where}: the SELECT does not yield key column {column!r}; it yields {list(outputs)}. Select "
                f"it, or alias a column with AS {column}."
            )
    allowed: dict[str, str | None] = {**key, **(columns or {})}
    for column, dtype in outputs.items():
        if column not in allowed and columns is not None:
            raise ProjectionError(
                f"{where}: column {column!r} is not declared; declared are {list(allowed)}. "
                "Add it to columns=, or remove it from the SELECT."
            )
        if deletes and column not in key:
            raise ProjectionError(f"{where}: a Delete yields key columns only, not {column!r}.")
        declared = allowed.get(column)
        if declared is not None and not keeps_values(dtype, resolve(declared)):
            raise ProjectionError(
                f"{where}, column {column}: the SELECT yields {dtype}, declared is {declared}. The conversion would "
                "change values: cast it in the SELECT, or declare another type."
            )
