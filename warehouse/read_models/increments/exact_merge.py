"""The exact merge of an increment: for rows with a total that does not fit its column, or did not before.

The fast merge of ``increment.py`` adds in the column's own type and fails where that cannot hold a total. This one adds
without a limit, shows the rows that fit and withholds the others.
"""

from __future__ import annotations

import duckdb

from refold.warehouse.declarations import reducers, totals
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import Column, Kind
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.read_models import withheld
from refold.warehouse.replay.contributions import beyond_column, same_key

BEFORE = "_before"
"""The temporary table with the touched rows before the increment."""


def merge_exactly(connection: duckdb.DuckDBPyConnection, model: Projection, delta: str) -> None:
    """Merge partials into a table and its withheld rows, inside the caller's transaction.

    Args:
        connection: connection to the database.
        model: the read model.
        delta: the relation of partials; distinct values are those that are new.
    """
    table, held, keys = quote(model.name), withheld.table_of(model.name), columns(model.key)
    own, beyond = columns(model.table), columns(withheld.beyond_columns(model))
    withheld.create(connection, model)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {BEFORE} AS "
        f"SELECT {own}, {beyond}, _position FROM {held} SEMI JOIN {delta} USING ({keys}) "
        f"UNION ALL BY NAME SELECT {own} FROM {table} SEMI JOIN {delta} USING ({keys})"
    )
    for each in (table, held):
        connection.execute(f"DELETE FROM {each} t USING {delta} d WHERE {same_key(model.key, 't', 'd')}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _after AS {_merged(model, delta)}")
    connection.execute(f"INSERT INTO {table} ({own}) SELECT {own} FROM _after WHERE {withheld.shown(model)}")
    connection.execute(
        f"INSERT INTO {held} ({own}, {beyond}) SELECT {own}, {beyond} FROM _after WHERE NOT ({withheld.shown(model)})"
    )


def _merged(model: Projection, delta: str) -> str:
    present = f"t.{quote(next(iter(model.key)))} IS NOT NULL"
    selected = [f"d.{quote(k)}" for k in model.key]
    for column in model.reduced():
        if column.reducer.kind is Kind.TOTAL:
            sum_ = totals.exact(f"d.{quote(column.name)}", str(column.reducer.type), wide=column.wide)
            value = f"{before_total(column)} + {sum_}"
        else:
            value = f"CASE WHEN {present} THEN {reducers.merge(column)} ELSE {reducers.inserted(column)} END"
        selected.append(f"{value} AS {quote(column.name)}")
    joined = f"SELECT {', '.join(selected)} FROM {delta} d LEFT JOIN {BEFORE} t ON {same_key(model.key, 't', 'd')}"
    fitted = {c.name: totals.fitting(quote(c.name), str(c.reducer.type)) for c in model.totals()}
    replaced = ", ".join(f"{value} AS {quote(name)}" for name, value in fitted.items())
    beyond = ", ".join(
        f"CASE WHEN {value} IS NULL THEN CAST({quote(name)} AS VARCHAR) END AS {quote(beyond_column(name))}"
        for name, value in fitted.items()
    )
    return f"SELECT * REPLACE ({replaced}), {beyond} FROM ({joined})"


def before_total(column: Column) -> str:
    """Return the exact total of the row ``t`` before the increment; 0 if there was none."""
    declared = str(column.reducer.type)
    kept = f"CAST(t.{quote(beyond_column(column.name))} AS {totals.exact_type(declared)})"
    return f"coalesce({kept}, {totals.exact(f't.{quote(column.name)}', declared)})"
