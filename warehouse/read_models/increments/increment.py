"""Increments: the events of a range of commits, applied to a database in one transaction.

There are two steps, which may run in two processes. :func:`stage` reduces events to their contributions to each read
model: the same contributions and partials as in a rebuild, as small Arrow tables. :func:`prepare_changes` and
:func:`apply_changes` apply these to the writer's database with one ``MERGE`` for each table. Rows and checkpoint are
committed together, so an increment is applied exactly once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from refold.warehouse.declarations import reducers
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.engine.duckdb_types import staged as staged_query
from refold.warehouse.engine.duckdb_types import unstaged
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.event_log.payload_parsing import InvalidEvent, Typed
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.database import seen_tables
from refold.warehouse.read_models.increments.exact_merge import merge_exactly
from refold.warehouse.read_models.live.indexes import NO_INDEXES, Indexes
from refold.warehouse.replay.contributions import (
    Compiled,
    combined,
    contribution_types,
    contributions,
    deletions,
    is_fold,
    partial_types,
    partials,
    same_key,
)
from refold.warehouse.replay.folds import (
    FoldFailure,
    fold_rows,
)
from refold.warehouse.replay.history import Replay
from refold.warehouse.replay.invalid_events import apply_valid

_OUT_OF_RANGE = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)
"""What DuckDB raises where a total leaves its type, or where the merge finds that it does."""
NO_READ_MODEL = ""
"""Stands for a read model's name: events that match no contract, so that no read model can apply them."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Contributions of the events of some commits to read models.

    Attributes:
        tables: read model to partials, one row for each key; or to contributions, if a delete or a fold needs them in
            order. A read model without contributions is absent.
        invalid_events: read model to the events that it excludes.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    invalid_events: dict[str, list[InvalidEvent]] = field(default_factory=dict)


def stage(connection: duckdb.DuckDBPyConnection, domain: Domain, models: Iterable[Compiled], typed: Typed) -> Staged:
    """Reduce events to their contributions to read models.

    Args:
        connection: connection on which ``typed`` can be queried; its tables are not changed.
        domain: contracts and upcasters.
        models: the read models.
        typed: the events of complete commits, in their stored schemas.
    """
    staged = Staged()
    if typed.invalid_events:
        staged.invalid_events[NO_READ_MODEL] = list(typed.invalid_events)
    for compiled in models:

        def contributed(replay: Replay, compiled: Compiled = compiled) -> pa.Table | None:
            source = contributions(compiled, replay.events)
            if source is None:
                return None
            select = source if _in_order(compiled) else partials(compiled, f"({source})")
            return _arrow(connection, staged_query(f"({select})", _staged_types(compiled)))

        table, invalid = apply_valid(connection, domain, compiled, typed.relations, contributed)
        if invalid:
            staged.invalid_events[compiled.model.name] = invalid
        if table is not None and table.num_rows:
            staged.tables[compiled.model.name] = table
    return staged


def _arrow(connection: duckdb.DuckDBPyConnection, select: str) -> pa.Table:
    """Run a query through a temporary table: a relation would be planned twice, and planning takes most of the time."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _contributed AS {select}")
    return connection.sql("FROM _contributed").to_arrow_table()


def _in_order(compiled: Compiled) -> bool:
    """Check whether contributions must be applied one by one, in position order."""
    return is_fold(compiled) or compiled.model.deletes


def _staged_types(compiled: Compiled) -> dict[str, str]:
    return contribution_types(compiled) if _in_order(compiled) else partial_types(compiled)


def _typed(compiled: Compiled, staged: str) -> str:
    return unstaged(staged, _staged_types(compiled))


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one read model by staged contributions, as relations on the writer's connection.

    Attributes:
        compiled: the read model.
        staged: the relation of staged contributions.
        delta: the relation of partials; for a fold, of new states.
    """

    compiled: Compiled
    staged: str
    delta: str


def prepare_changes(
    connection: duckdb.DuckDBPyConnection,
    models: Iterable[Compiled],
    staged: Sequence[Staged],
    stage_valid: Callable[[Compiled], tuple[pa.Table | None, list[InvalidEvent]]],
) -> tuple[list[Change], dict[str, list[InvalidEvent]]]:
    """Compute the changes of tables, before the transaction, since a failing fold would abort it.

    Args:
        connection: connection to the database.
        models: the read models to advance; all must be just before these events.
        staged: contributions of all commits of the increment, in any order.
        stage_valid: stages a fold again without the events on which its function fails; see :func:`stage_fold`.

    Returns:
        Changes for :func:`apply_changes`, and the events that read models exclude.
    """
    changes = []
    invalid_events = _merge_invalid(staged)
    for number, compiled in enumerate(models):
        name = compiled.model.name
        tables = [s.tables[name] for s in staged if name in s.tables]
        if not tables:
            continue
        try:
            changes.append(_prepare(connection, compiled, tables, number))
        except FoldFailure:
            table, failed = stage_valid(compiled)
            invalid_events[name] = failed
            if table is not None:
                changes.append(_prepare(connection, compiled, [table], number))
    return changes, invalid_events


def stage_fold(
    connection: duckdb.DuckDBPyConnection, domain: Domain, compiled: Compiled, typed: Typed
) -> tuple[pa.Table | None, list[InvalidEvent]]:
    """Stage contributions to a fold without the events on which its function fails.

    Args:
        connection: connection to the database, which holds the states for the function.
        domain: contracts and upcasters.
        compiled: the fold.
        typed: the events of the increment.
    """

    def contributed(replay: Replay) -> pa.Table | None:
        source = contributions(compiled, replay.events)
        if source is None:
            return None
        table = _arrow(connection, staged_query(f"({source})", _staged_types(compiled)))
        connection.register("_tried_staged", table)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE _tried AS {_typed(compiled, '_tried_staged')}")
        _fold(connection, compiled, "_tried")
        return table

    return apply_valid(connection, domain, compiled, typed.relations, contributed)


class TotalBeyondColumn(Exception):
    """The fast merge met a total that does not fit its column; nothing is known of which."""

    def __init__(self, read_model: str) -> None:
        self.read_model = read_model
        super().__init__(read_model)


def apply_changes(
    connection: duckdb.DuckDBPyConnection,
    changes: Iterable[Change],
    indexes: Indexes = NO_INDEXES,
    *,
    exactly: Collection[str] = (),
    report: Callable[[Compiled], None] = lambda _: None,
) -> None:
    """Apply changes to tables, inside the caller's transaction.

    Args:
        connection: connection to the database.
        changes: changes from :func:`prepare_changes`.
        indexes: read model to its indexed columns.
        exactly: names of the read models with a total that does not fit its column, or did not before.
        report: called after each exact merge, for the rows that it withheld.

    Raises:
        TotalBeyondColumn: a total of a read model that is not among ``exactly`` does not fit; the transaction failed.
    """
    for change in changes:
        name = change.compiled.model.name
        if is_fold(change.compiled):
            _replace_states(connection, change)
        elif name in exactly:
            _merge_exactly(connection, change)
            report(change.compiled)
        else:
            try:
                _merge(connection, _without_deleted(connection, change, exactly=False), indexes.get(name, ()))
            except _OUT_OF_RANGE as error:
                if withheld.beyond_columns(change.compiled.model):
                    raise TotalBeyondColumn(name) from error
                raise


def _merge_exactly(connection: duckdb.DuckDBPyConnection, change: Change) -> None:
    model = change.compiled.model
    assert isinstance(model, Projection)
    withheld.remember_positions(connection, model)
    merge_exactly(connection, model, _without_deleted(connection, change, exactly=True).delta)


def _merge_invalid(staged: Iterable[Staged]) -> dict[str, list[InvalidEvent]]:
    merged: dict[str, list[InvalidEvent]] = {}
    for one in staged:
        for name, events in one.invalid_events.items():
            merged.setdefault(name, []).extend(events)
    return merged


def _prepare(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, tables: Sequence[pa.Table], number: int
) -> Change:
    staged, delta = f"_staged_{number}", f"_delta_{number}"
    connection.register(staged, pa.concat_tables(tables))
    if (typed := _typed(compiled, staged)) != f"SELECT * FROM {staged}":
        staged = f"_typed_{number}"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {staged} AS {typed}")
    if is_fold(compiled):
        connection.register(f"{delta}_staged", _fold(connection, compiled, staged))
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {delta} AS {unstaged(f'{delta}_staged', compiled.model.table)}"
        )
        return Change(compiled, staged, delta)
    if compiled.model.deletes:
        select = partials(compiled, staged)
    elif len(tables) > 1:
        select = combined(compiled, staged)
    else:
        return Change(compiled, staged, staged)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {delta} AS {select}")
    return Change(compiled, staged, delta)


def _fold(connection: duckdb.DuckDBPyConnection, compiled: Compiled, staged: str) -> pa.Table:
    return fold_rows(connection, compiled, f"FROM {staged}", table=compiled.model.name)


def _replace_states(connection: duckdb.DuckDBPyConnection, change: Change) -> None:
    model, keys = change.compiled.model, change.compiled.keys
    touched = f"SELECT DISTINCT {keys} FROM {change.staged}"
    connection.execute(f"DELETE FROM {quote(model.name)} t USING ({touched}) d WHERE {same_key(model.key, 't', 'd')}")
    connection.execute(f"INSERT INTO {quote(model.name)} SELECT {columns(model.table)} FROM {change.delta}")


def _merge(connection: duckdb.DuckDBPyConnection, change: Change, indexed: Sequence[str]) -> None:
    model = change.compiled.model
    assert isinstance(model, Projection)
    values = [f"d.{quote(k)}" for k in model.key] + [reducers.inserted(column) for column in model.reduced()]
    connection.execute(
        f"MERGE INTO {quote(model.name)} t USING {change.delta} d ON {same_key(model.key, 't', 'd')} "
        + _updates(model, [c for c in indexed if c in model.columns])
        + f"WHEN NOT MATCHED THEN INSERT ({columns(model.table)}) VALUES ({', '.join(values)})"
    )


def _without_deleted(connection: duckdb.DuckDBPyConnection, change: Change, *, exactly: bool) -> Change:
    """Delete the rows that an increment deletes, and return the change with those distinct values that are new."""
    model = change.compiled.model
    seen_of = seen_tables(model)
    if model.deletes:
        gone = deletions(change.compiled, change.staged)
        held = [withheld.table_of(model.name)] if exactly else []
        for table in (quote(model.name), *held, *seen_of.values()):
            connection.execute(f"DELETE FROM {table} t USING ({gone}) d WHERE {same_key(model.key, 't', 'd')}")
    return dataclasses.replace(change, delta=_only_unseen(connection, change, seen_of)) if seen_of else change


def _updates(model: Projection, indexed: Sequence[str]) -> str:
    """Return the WHEN MATCHED clauses; an indexed column is set only in rows with a contribution to it.

    Setting an indexed column, even to the same value, would move the row and change every index of the table.
    """
    sets = {column.name: f"{quote(column.name)} = {reducers.merge(column)}" for column in model.reduced()}
    others = [s for c, s in sets.items() if c not in indexed]
    if not sets:
        return ""
    if not indexed:
        return f"WHEN MATCHED THEN UPDATE SET {', '.join(others)} "
    touched = " OR ".join(reducers.touches(model.columns[c], c) for c in indexed)
    both = f"WHEN MATCHED AND ({touched}) THEN UPDATE SET {', '.join(sets.values())} "
    return both + (f"WHEN MATCHED THEN UPDATE SET {', '.join(others)} " if others else "WHEN MATCHED THEN DO NOTHING ")


def _only_unseen(connection: duckdb.DuckDBPyConnection, change: Change, seen_of: Mapping[str, str]) -> str:
    """Reduce a partial's distinct values to new ones, and add these to the seen table."""
    keys, key, unseen = change.compiled.keys, change.compiled.model.key, "_unseen"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {unseen} AS FROM {change.delta}")
    for column, seen in seen_of.items():
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE _fresh AS SELECT {keys}, _value FROM (SELECT {keys}, unnest({quote(column)})"
            f" AS _value FROM {unseen}) ANTI JOIN {seen} USING ({keys}, _value)"
        )
        connection.execute(f"INSERT INTO {seen} SELECT {keys}, _value FROM _fresh")
        fresh = f"SELECT {keys}, list(_value) AS _values FROM _fresh GROUP BY {keys}"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {unseen} AS SELECT d.* REPLACE (f._values AS {quote(column)}) "
            f"FROM {unseen} d LEFT JOIN ({fresh}) f ON {same_key(key, 'd', 'f')}"
        )
    return unseen
