"""Increments: the events of a range of commits, applied to a database in one transaction.

The same contributions and partials as in a rebuild, for only the new events; then one ``MERGE`` a table. Rows and
checkpoint are committed together, so an increment is applied once or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def apply_increment(
    connection: duckdb.DuckDBPyConnection, domain: Domain, models: Sequence[Compiled], typed: Typed
) -> dict[str, list[BrokenEvent]]:
    """Apply events to tables, inside the caller's transaction.

    Args:
        connection: the working database, with ``typed`` on it.
        domain: contracts and upcasters.
        models: the read models to bring forward; all must stand just before these events.
        typed: the events of whole commits, in the shapes they were stored in.

    Returns:
        Read model to the events that it had to go without.
    """
    broken: dict[str, list[BrokenEvent]] = {}
    for compiled in models:
        found = _prepare(connection, domain, compiled, typed)
        if found is None:
            continue
        if found:
            broken[compiled.model.name] = found
        if is_fold(compiled):
            _replace_states(connection, compiled)
        else:
            _merge(connection, compiled)
    return broken


def _prepare(
    connection: duckdb.DuckDBPyConnection, domain: Domain, compiled: Compiled, typed: Typed
) -> list[BrokenEvent] | None:
    """Compute a model's change into temporary tables; None if no event concerns it."""

    def compute(replay: Replay) -> bool:
        source = contributions(compiled, replay.events)
        if source is None:
            return False
        connection.execute(f"CREATE OR REPLACE TEMP TABLE _contributions AS {source}")
        if is_fold(compiled):
            states = load_states(connection, compiled, compiled.model.name, "FROM _contributions")
            folded = fold_rows(connection, compiled, "FROM _contributions", states=states)
            connection.register("_states_arrow", states_table(compiled, folded))
            connection.execute("CREATE OR REPLACE TEMP TABLE _states AS FROM _states_arrow")
            connection.unregister("_states_arrow")
        else:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE _delta AS {partials(compiled, '_contributions')}")
        return True

    concerned, broken = apply_unbroken(connection, domain, compiled, typed.relations, compute)
    return broken if concerned or broken else None


def _replace_states(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> None:
    table, key = quote(compiled.model.name), compiled.model.key
    touched = f"SELECT DISTINCT {compiled.keys} FROM _contributions"
    connection.execute(f"DELETE FROM {table} t USING ({touched}) d WHERE {same_key(key, 't', 'd')}")
    connection.execute(f"INSERT INTO {table} SELECT {columns(compiled.model.table)} FROM _states")


def _merge(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> None:
    model = compiled.model
    assert isinstance(model, Projection)
    if model.deletes:
        gone = deletions(compiled, "_contributions")
        for table in (quote(model.name), *seen_tables(model).values()):
            connection.execute(f"DELETE FROM {table} t USING ({gone}) d WHERE {same_key(model.key, 't', 'd')}")
    for column, seen in seen_tables(model).items():
        _only_unseen(connection, compiled, column, seen)
    updates = ", ".join(f"{quote(c)} = {reducers.merge(r, c)}" for c, r in model.columns.items())
    values = [f"d.{quote(k)}" for k in model.key] + [
        reducers.final(r, c, prefix="d.") for c, r in model.columns.items()
    ]
    connection.execute(
        f"MERGE INTO {quote(model.name)} t USING _delta d ON {same_key(model.key, 't', 'd')} "
        + (f"WHEN MATCHED THEN UPDATE SET {updates} " if updates else "")
        + f"WHEN NOT MATCHED THEN INSERT ({columns(model.table)}) VALUES ({', '.join(values)})"
    )


def _only_unseen(connection: duckdb.DuckDBPyConnection, compiled: Compiled, column: str, seen: str) -> None:
    """Reduce a partial's distinct values to those that the table has not seen, and remember them."""
    keys = compiled.keys
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _fresh AS SELECT {keys}, _value FROM (SELECT {keys}, unnest({quote(column)})"
        f"::VARCHAR AS _value FROM _delta) ANTI JOIN {seen} USING ({keys}, _value)"
    )
    connection.execute(f"INSERT INTO {seen} SELECT {keys}, _value FROM _fresh")
    fresh = f"SELECT {keys}, list(_value) AS _values FROM _fresh GROUP BY {keys}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _delta AS SELECT d.* REPLACE (f._values AS {quote(column)}) "
        f"FROM _delta d LEFT JOIN ({fresh}) f ON {same_key(compiled.model.key, 'd', 'f')}"
    )
