"""Withheld rows: rows with a total that its column's type cannot hold at the end of a rebuild or of an increment.

Readers must see neither a wrong total nor NULL, so such a row is in a table of its own, ``refold.withheld_<model>``,
which exists only while it has rows. There, ``_beyond_<column>`` has the exact total as text, and ``_position`` is the
event since which the row is withheld. The row returns as soon as its totals fit: every event counts, so where a history
is cut makes no difference. A dead letter at that position reports the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from refold.event_schemas import InvalidEventsError
from refold.warehouse.declarations.projection import Projection, ReadModel
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.replay.contributions import beyond_column

_PREFIX = "withheld_"
_EXAMPLES = 5


def table_of(model: str) -> str:
    """Return the table of a read model's withheld rows."""
    return f"refold.{quote(_PREFIX + model)}"


def beyond_columns(model: ReadModel) -> list[str]:
    """Return the columns that hold totals which do not fit."""
    return [beyond_column(column.name) for column in model.totals()] if isinstance(model, Projection) else []


def shown(model: ReadModel) -> str:
    """Return the condition that all totals of a row fit, so that readers see it."""
    return " AND ".join(f"{quote(name)} IS NULL" for name in beyond_columns(model)) or "true"


def create(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> None:
    """Create the table of a read model's withheld rows, if there is none yet."""
    typed = [f"{quote(c)} {t}" for c, t in model.table.items()]
    typed += [f"{quote(c)} VARCHAR" for c in beyond_columns(model)]
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table_of(model.name)} ({', '.join(typed)}, _position BIGINT)")


def load(connection: duckdb.DuckDBPyConnection, model: ReadModel, rows: str) -> None:
    """Keep those of the staged rows of a rebuild that are withheld; their positions are not known yet."""
    if not beyond_columns(model):
        return
    held = f"FROM {rows} WHERE NOT ({shown(model)})"
    if connection.execute(f"SELECT 1 {held} LIMIT 1").fetchone() is not None:
        create(connection, model)
        names = columns([*model.table, *beyond_columns(model)])
        connection.execute(f"INSERT INTO {table_of(model.name)} ({names}) SELECT {names} {held}")


def remember_positions(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> None:
    """Remember the positions of withheld rows before an increment, for :func:`delete_obsolete_letters`."""
    create(connection, model)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _reported AS SELECT DISTINCT _position FROM {table_of(model.name)}"
    )


def delete_obsolete_letters(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> None:
    """Delete the dead letters of rows that are shown again, were deleted, or are withheld since another event."""
    connection.execute(
        "DELETE FROM refold.dead_letters WHERE read_model = ? AND position IN (FROM _reported) "
        f"AND position NOT IN (SELECT _position FROM {table_of(model.name)})",
        [model.name],
    )


def drop_if_empty(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> None:
    """Drop the table of withheld rows once all of them are shown again."""
    if connection.execute(f"SELECT 1 FROM {table_of(model.name)} LIMIT 1").fetchone() is None:
        connection.execute(f"DROP TABLE {table_of(model.name)}")


def models_with_withheld(connection: duckdb.DuckDBPyConnection, database: str = "current_database()") -> set[str]:
    """Return the names of the read models that have withheld rows."""
    rows = connection.execute(
        f"SELECT table_name FROM duckdb_tables() WHERE database_name = {database} AND schema_name = 'refold' "
        f"AND starts_with(table_name, '{_PREFIX}')"
    ).fetchall()
    return {name.removeprefix(_PREFIX) for (name,) in rows}


@dataclass(frozen=True, slots=True)
class WithheldEvent:
    """The dead letter of withheld rows."""

    read_model: str
    position: int
    reason: str


def undecided(connection: duckdb.DuckDBPyConnection, models: Sequence[str]) -> list[WithheldEvent]:
    """Return the dead letters of withheld rows that were not discarded."""
    found: list[Any] = []
    for name in sorted(models_with_withheld(connection) & set(models)):
        found += connection.execute(
            "SELECT DISTINCT read_model, l.position, reason FROM refold.dead_letters l "
            f"JOIN {table_of(name)} w ON l.position = w._position "
            "WHERE read_model = ? AND discarded_at IS NULL ORDER BY 2",
            [name],
        ).fetchall()
    return [WithheldEvent(*row) for row in found]


def refuse(connection: duckdb.DuckDBPyConnection, models: Sequence[str], *, doing: str) -> None:
    """Raise an error if rows are withheld and not discarded: the end of a strict run.

    Raises:
        InvalidEventsError: naming read models, keys, columns and positions.
    """
    events = undecided(connection, models)
    if not events:
        return
    named = [f"Read model {e.read_model}, position {e.position}: {e.reason}" for e in events[:_EXAMPLES]]
    more = f" And {len(events) - _EXAMPLES} more." if len(events) > _EXAMPLES else ""
    raise InvalidEventsError(
        f"{doing} ends with totals that do not fit their columns. {' '.join(named)}{more} Nothing was published. "
        "Declare a wider type for the column, or append the event that corrects the total. Or run again with "
        "--dead-letter to publish without these rows; each returns once its total fits."
    )
