"""The result in a DuckDB file, with the tables of a published one, so that both can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import duckdb

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.sequential_fold.fold import Folded
from refold.warehouse.sequential_fold.values import name_in_sql

_LETTERS = ("stream_id", "event_type", "schema_version")


def write_folded(path: Path, models: Sequence[ReadModel], folded: Folded) -> None:
    """Write rows and dead letters to a new file.

    Raises:
        ProjectionError: a value does not fit its column; the message names the read model, the key and the column.
    """
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        for model in models:
            typed = ", ".join(f"{name_in_sql(c)} {t}" for c, t in model.table.items())
            connection.execute(f"CREATE TABLE {name_in_sql(model.name)} ({typed})")
            for row in folded.rows[model.name]:
                _insert(connection, model, row)
        connection.execute(
            "CREATE SCHEMA refold; CREATE TABLE refold.dead_letters (read_model VARCHAR, position BIGINT, "
            "stream_id VARCHAR, event_type VARCHAR, schema_version INTEGER)"
        )
        for name, invalid in folded.invalid.items():
            for position, event in invalid.items():
                values = [name, position, *(event[c] for c in _LETTERS)]
                connection.execute("INSERT INTO refold.dead_letters VALUES (?, ?, ?, ?, ?)", values)


def _insert(connection: duckdb.DuckDBPyConnection, model: ReadModel, row: dict[str, object]) -> None:
    slots = ", ".join(f"CAST(? AS {t})" for t in model.table.values())
    try:
        connection.execute(f"INSERT INTO {name_in_sql(model.name)} VALUES ({slots})", [row[c] for c in model.table])
    except duckdb.Error as error:
        key = {k: row[k] for k in model.key}
        for column, dtype in model.table.items():
            try:
                connection.execute(f"SELECT CAST(? AS {dtype})", [row[column]])
            except duckdb.Error:
                raise ProjectionError(
                    f"Read model {model.name}, key {key}, column {column}: the value {row[column]!r} of a sequential "
                    f"fold does not fit {dtype}. Declare a wider type."
                ) from error
        raise
