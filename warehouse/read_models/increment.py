"""Increments: the events of a range of commits, applied to a database in one transaction.

The same contributions and partials as in a rebuild, for only the new events; then one ``MERGE`` a table. Rows and
checkpoint are committed together, so an increment is applied once or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from warehouse import reducers
from warehouse.broken import apply_unbroken
from warehouse.contributions import Compiled, contributions, deletions, is_fold, partials, same_key
from warehouse.domain import Domain
from warehouse.folding import fold_rows, load_states, states_table
from warehouse.parsing import BrokenEvent, Typed
from warehouse.projection import Projection
from warehouse.read_models.database import seen_tables
from warehouse.replay import Replay
from warehouse.sql import columns, quote


@dataclass(frozen=True, slots=True)
class Change:
    """What some events do to one read model, in temporary tables.

    Attributes:
        compiled: the read model.
        broken: the events that it has to go without.
        concerned: whether there is anything to apply.
        number: its place among the changes of one increment, which names its tables.
    """

    compiled: Compiled
    broken: list[BrokenEvent]
    concerned: bool
    number: int

    @property
    def contributions(self) -> str:
        """Name the table of all contributions."""
        return f"_contributions_{self.number}"

    @property
    def delta(self) -> str:
        """Name the table of partials; for a fold, of new states."""
        return f"_delta_{self.number}"


def prepare_changes(
    connection: duckdb.DuckDBPyConnection, domain: Domain, models: Sequence[Compiled], typed: Typed
) -> list[Change]:
    """Compute what events do to tables, before the transaction: a broken event would abort it.

    Args:
        connection: the working database, with ``typed`` on it.
        domain: contracts and upcasters.
        models: the read models to bring forward; all must stand just before these events.
        typed: the events of whole commits, in the shapes they were stored in.
    """
    return [_prepare(connection, domain, compiled, typed, number) for number, compiled in enumerate(models)]


def apply_changes(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    """Apply changes to tables, inside the caller's transaction."""
    for change in changes:
        if change.concerned and is_fold(change.compiled):
            _replace_states(connection, change)
        elif change.concerned:
            _merge(connection, change)


def _prepare(
    connection: duckdb.DuckDBPyConnection, domain: Domain, compiled: Compiled, typed: Typed, number: int
) -> Change:
    made = Change(compiled, [], True, number)

    def compute(replay: Replay) -> bool:
        source = contributions(compiled, replay.events)
        if source is None:
            return False
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {made.contributions} AS {source}")
        if is_fold(compiled):
            given = f"FROM {made.contributions}"
            states = load_states(connection, compiled, compiled.model.name, given)
            folded = fold_rows(connection, compiled, given, states=states)
            connection.register("_states_arrow", states_table(compiled, folded))
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {made.delta} AS FROM _states_arrow")
            connection.unregister("_states_arrow")
        else:
            delta = partials(compiled, made.contributions)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {made.delta} AS {delta}")
        return True

    concerned, broken = apply_unbroken(connection, domain, compiled, typed.relations, compute)
    return dataclasses.replace(made, concerned=concerned, broken=broken)


def _replace_states(connection: duckdb.DuckDBPyConnection, change: Change) -> None:
    model, keys = change.compiled.model, change.compiled.keys
    touched = f"SELECT DISTINCT {keys} FROM {change.contributions}"
    connection.execute(f"DELETE FROM {quote(model.name)} t USING ({touched}) d WHERE {same_key(model.key, 't', 'd')}")
    connection.execute(f"INSERT INTO {quote(model.name)} SELECT {columns(model.table)} FROM {change.delta}")


def _merge(connection: duckdb.DuckDBPyConnection, change: Change) -> None:
    model = change.compiled.model
    assert isinstance(model, Projection)
    if model.deletes:
        gone = deletions(change.compiled, change.contributions)
        for table in (quote(model.name), *seen_tables(model).values()):
            connection.execute(f"DELETE FROM {table} t USING ({gone}) d WHERE {same_key(model.key, 't', 'd')}")
    for column, seen in seen_tables(model).items():
        _only_unseen(connection, change, column, seen)
    updates = ", ".join(f"{quote(c)} = {reducers.merge(r, c)}" for c, r in model.columns.items())
    values = [f"d.{quote(k)}" for k in model.key] + [
        reducers.final(r, c, prefix="d.") for c, r in model.columns.items()
    ]
    connection.execute(
        f"MERGE INTO {quote(model.name)} t USING {change.delta} d ON {same_key(model.key, 't', 'd')} "
        + (f"WHEN MATCHED THEN UPDATE SET {updates} " if updates else "")
        + f"WHEN NOT MATCHED THEN INSERT ({columns(model.table)}) VALUES ({', '.join(values)})"
    )


def _only_unseen(connection: duckdb.DuckDBPyConnection, change: Change, column: str, seen: str) -> None:
    """Reduce a partial's distinct values to those that the table has not seen, and remember them."""
    keys, delta = change.compiled.keys, change.delta
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _fresh AS SELECT {keys}, _value FROM (SELECT {keys}, unnest({quote(column)})"
        f"::VARCHAR AS _value FROM {delta}) ANTI JOIN {seen} USING ({keys}, _value)"
    )
    connection.execute(f"INSERT INTO {seen} SELECT {keys}, _value FROM _fresh")
    fresh = f"SELECT {keys}, list(_value) AS _values FROM _fresh GROUP BY {keys}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {delta} AS SELECT d.* REPLACE (f._values AS {quote(column)}) "
        f"FROM {delta} d LEFT JOIN ({fresh}) f ON {same_key(change.compiled.model.key, 'd', 'f')}"
    )
