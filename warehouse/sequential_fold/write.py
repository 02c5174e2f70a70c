"""The result in a DuckDB file, with the tables of a published one, so that both can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.sequential_fold.fold import Folded
from refold.warehouse.sequential_fold.values import name_in_sql

_LETTERS = ("stream_id", "event_type", "schema_version")


def write_folded(connection: duckdb.DuckDBPyConnection, models: Sequence[ReadModel], folded: Folded) -> None:
    """Write rows, withheld rows and dead letters to a new database, in which the session zone is UTC.

    Raises:
        ProjectionError: a value does not fit its column; the message names the read model, the key and the column.
    """
    connection.execute("CREATE SCHEMA refold")
    for model in models:
        _write(connection, model, name_in_sql(model.name), model.table, folded.rows[model.name])
        if held := folded.withheld[model.name]:
            types = {**model.table, **dict.fromkeys((n for n in held[0] if n.startswith("_beyond_")), "VARCHAR")}
            table = f"refold.{name_in_sql(f'withheld_{model.name}')}"
            _write(connection, model, table, {**types, "_position": "BIGINT"}, held)
    connection.execute(
        "CREATE TABLE refold.dead_letters (read_model VARCHAR, position BIGINT, "
        "stream_id VARCHAR, event_type VARCHAR, schema_version INTEGER)"
    )
    for name, letters in folded.letters.items():
        for position, event in letters.items():
            values = [name, position, *(event[c] for c in _LETTERS)]
            connection.execute("INSERT INTO refold.dead_letters VALUES (?, ?, ?, ?, ?)", values)


def _write(
    connection: duckdb.DuckDBPyConnection,
    model: ReadModel,
    table: str,
    types: Mapping[str, str],
    rows: Sequence[Mapping[str, object]],
) -> None:
    connection.execute(f"CREATE TABLE {table} ({', '.join(f'{name_in_sql(c)} {t}' for c, t in types.items())})")
    slots = ", ".join(f"CAST(? AS {t})" for t in types.values())
    for row in rows:
        try:
            connection.execute(f"INSERT INTO {table} VALUES ({slots})", [row[c] for c in types])
        except duckdb.Error as error:
            _explain(connection, model, types, row, error)
            raise


def _explain(
    connection: duckdb.DuckDBPyConnection,
    model: ReadModel,
    types: Mapping[str, str],
    row: Mapping[str, object],
    error: duckdb.Error,
) -> None:
    """Raise an error about the column that cannot hold its value, if there is one."""
    for column, dtype in types.items():
        try:
            connection.execute(f"SELECT CAST(? AS {dtype})", [row[column]])
        except duckdb.Error:
            raise ProjectionError(
                f"Read model {model.name}, key { ({k: row[k] for k in model.key}) }, column {column}: the value "
                f"{row[column]!r} of a sequential fold does not fit {dtype}. Declare a wider type."
            ) from error
