"""The database of one generation: the tables of all read models, their state and their checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import duckdb

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.declarations.projection import (
    Projection,
    ReadModel,
    create_table_sql,
    create_view,
)
from refold.warehouse.engine.connections import attach, connect
from refold.warehouse.engine.duckdb_types import unstaged
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.read_models import withheld
from refold.warehouse.replay.contributions import row_types, seen_column

STORAGE_VERSION = "v1.4.0"
"""Files can be opened by DuckDB 1.4 and newer."""

_CREATE = """
CREATE SCHEMA IF NOT EXISTS refold;
CREATE TABLE IF NOT EXISTS refold.checkpoint (
    domain        VARCHAR,
    log_id        VARCHAR,
    position      BIGINT,       -- every table of this file holds all events up to here, and none after
    commit_number BIGINT,
    recorded_at   TIMESTAMPTZ,  -- when the last of them was recorded
    last_updated  TIMESTAMPTZ   -- when this file was brought there
);
CREATE TABLE IF NOT EXISTS refold.projections (
    name          VARCHAR,
    fingerprint   VARCHAR,
    position      BIGINT,
    rows          BIGINT,
    checksum      VARCHAR       -- independent of row order
);
CREATE TABLE IF NOT EXISTS refold.dead_letters (
    read_model     VARCHAR,
    position       BIGINT,
    stream_id      VARCHAR,
    event_type     VARCHAR,
    schema_version INTEGER,
    reason         VARCHAR,
    payload        VARCHAR
);
-- Columns that files of refold 0.1.0 lack:
ALTER TABLE refold.dead_letters ADD COLUMN IF NOT EXISTS discarded_at TIMESTAMPTZ;
ALTER TABLE refold.checkpoint ADD COLUMN IF NOT EXISTS commit_digest VARCHAR;  -- of that commit, in the log's chain
ALTER TABLE refold.projections ADD COLUMN IF NOT EXISTS erasures BIGINT DEFAULT 0;  -- of the log, when it was read
"""

_VIEWS = """
SELECT view_name FROM duckdb_views()
WHERE NOT internal AND database_name = current_database() AND schema_name = 'main'
"""
_SEEN = """
SELECT table_name FROM duckdb_tables()
WHERE database_name = current_database() AND schema_name = 'refold' AND starts_with(table_name, 'seen_')
"""
NOTHING_DISCARDED: Mapping[tuple[str, int], datetime] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The place in the log up to which a database holds all events.

    Attributes:
        position: position of the last event.
        commit_number: number of its commit.
        recorded_at: time at which that commit was recorded, RFC 3339; empty for the empty log.
        commit_digest: digest of that commit, by which it is known that the log still has it; empty if that is unknown,
            or the checkpoint is inside the commit.
    """

    position: int
    commit_number: int
    recorded_at: str
    commit_digest: str = ""

    @property
    def end(self) -> Link:
        """The place in the log's chain."""
        return Link(self.commit_number, self.position, self.commit_digest)


def checkpoint_at(place: CommitInfo | Manifest) -> Checkpoint:
    """Return the checkpoint after a commit, or at the end of the sealed log."""
    recorded_at = place.recorded_at if isinstance(place, Manifest) else place.recorded_at.isoformat()
    end = place.end
    return Checkpoint(end.position, end.commit_number, recorded_at, end.digest)


def open_database(
    path: Path, *, threads: int | None = None, memory_limit: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Open the private working database of one writer, and create it if it does not exist.

    Args:
        path: the file; no other process may open it.
        threads: number of threads of a query.
        memory_limit: limit beyond which DuckDB spills into a folder beside the file.
    """
    connection = connect(threads=threads, memory_limit=memory_limit, temp_directory=path.parent / "spill")
    attach(connection, path, "models", storage_version=STORAGE_VERSION)
    connection.execute("USE models")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(_CREATE)
    return connection


def rewritten(connection: duckdb.DuckDBPyConnection, path: Path) -> Path:
    """Copy a working database into a new file: the old one keeps blocks of what was deleted from it.

    Args:
        connection: the working database; this closes it.
        path: its file, which is deleted.

    Returns:
        The new file, beside the old one.
    """
    copy = path.with_suffix(".rewritten.duckdb")
    drop_views(connection)  # publishing creates them again
    attach(connection, copy, "rewritten", storage_version=STORAGE_VERSION)
    connection.execute("COPY FROM DATABASE models TO rewritten")
    connection.execute("DETACH rewritten")
    connection.close()
    path.unlink()
    return copy


def create_table(connection: duckdb.DuckDBPyConnection, model: ReadModel, staged: Sequence[Path]) -> None:
    """Replace a read model's table by staged rows."""
    drop_table(connection, model)
    connection.execute(create_table_sql(model))
    key = ", ".join(f"{quote(c)} {t}" for c, t in model.key.items())
    for column, seen in seen_tables(model).items():
        connection.execute(f"CREATE TABLE {seen} ({key}, _value {model.contributed[column]})")
    if not staged:
        return
    rows = f"({unstaged(parquet_relation(staged), row_types(model))})"
    withheld.load(connection, model, rows)
    connection.execute(
        f"INSERT INTO {quote(model.name)} ({columns(model.table)}) SELECT {columns(model.table)} FROM {rows}"
        f" WHERE {withheld.shown(model)}"
    )
    for column, seen in seen_tables(model).items():
        values = f"unnest({quote(seen_column(column))})"
        connection.execute(f"INSERT INTO {seen} SELECT {columns(model.key)}, {values} FROM {rows}")


def drop_table(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> None:
    """Drop a read model's table, its seen tables and its withheld rows."""
    for name in (quote(model.name), withheld.table_of(model.name), *seen_tables(model).values()):
        connection.execute(f"DROP TABLE IF EXISTS {name}")


def seen_tables(model: ReadModel) -> dict[str, str]:
    """Return the table of seen values of each ``count_distinct`` column."""
    if not isinstance(model, Projection):
        return {}
    return {c: f"refold.{quote(f'seen_{model.name}_{c}')}" for c in model.distinct_columns()}


def drop_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop all views, also undeclared ones, so that their tables can be replaced."""
    for (name,) in connection.execute(_VIEWS).fetchall():
        connection.execute(f"DROP VIEW IF EXISTS {quote(name)}")


def drop_undeclared(connection: duckdb.DuckDBPyConnection, domain: Domain) -> None:
    """Drop the tables of read models that the domain no longer declares, and everything that belongs to them."""
    declared = {m.name for m in domain.read_models}
    for name in set(tables(connection)) - declared:
        connection.execute(f"DROP TABLE IF EXISTS {quote(name)}")
        connection.execute(f"DROP TABLE IF EXISTS {withheld.table_of(name)}")
        connection.execute("DELETE FROM refold.projections WHERE name = ?", [name])
        connection.execute("DELETE FROM refold.dead_letters WHERE read_model = ?", [name])
    seen = {table for m in domain.read_models for table in seen_tables(m).values()}
    for (name,) in connection.execute(_SEEN).fetchall():
        if f"refold.{quote(name)}" not in seen:
            connection.execute(f"DROP TABLE refold.{quote(name)}")


def create_views(connection: duckdb.DuckDBPyConnection, domain: Domain) -> None:
    """Create the domain's views, except those over read models that were never built."""
    absent = {m.name for m in domain.read_models} - set(tables(connection))
    for view in domain.views:
        try:
            create_view(view, connection)
        except ProjectionError:
            if not absent:
                raise


def tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the names of the read models in the database."""
    return [row[0] for row in connection.execute("SELECT name FROM refold.projections ORDER BY name").fetchall()]


def set_checkpoint(
    connection: duckdb.DuckDBPyConnection, checkpoint: Checkpoint, *, domain_name: str, log_id: str
) -> None:
    """Write the checkpoint; call it in the transaction that changes the tables."""
    connection.execute("DELETE FROM refold.checkpoint")
    connection.execute(
        "INSERT INTO refold.checkpoint VALUES (?, ?, ?, ?, ?, now(), ?)",
        [
            domain_name,
            log_id,
            checkpoint.position,
            checkpoint.commit_number,
            checkpoint.recorded_at or None,
            checkpoint.commit_digest,
        ],
    )


def get_checkpoint(connection: duckdb.DuckDBPyConnection) -> Checkpoint:
    """Read the checkpoint; position 0 in a new database."""
    rows = connection.execute(
        "SELECT position, commit_number, recorded_at, commit_digest FROM refold.checkpoint"
    ).fetchall()
    if not rows:
        return Checkpoint(0, 0, "")
    position, commit_number, recorded_at, digest = rows[0]
    return Checkpoint(position, commit_number, recorded_at.isoformat() if recorded_at else "", digest or "")


def set_fingerprint(
    connection: duckdb.DuckDBPyConnection, model: ReadModel, domain: Domain, position: int, *, erasures: int = 0
) -> None:
    """Record the declaration that produced a read model's rows, their position, and the erasures before them."""
    connection.execute("DELETE FROM refold.projections WHERE name = ?", [model.name])
    digest = fingerprint(fingerprint_parts(model, domain))
    row = [model.name, digest, position, erasures]
    connection.execute("INSERT INTO refold.projections VALUES (?, ?, ?, NULL, NULL, ?)", row)


def add_dead_letters(
    connection: duckdb.DuckDBPyConnection,
    invalid_events: Mapping[str, Sequence[InvalidEvent]],
    *,
    discarded: Mapping[tuple[str, int], datetime] = NOTHING_DISCARDED,
) -> None:
    """Add events that could not be applied to the dead letters, each once.

    Args:
        connection: the working database.
        invalid_events: read model to its events; the empty name has those that match no contract.
        discarded: read model and position of discarded dead letters, and when they were discarded.
    """
    if not any(invalid_events.values()):
        return
    known = set(connection.execute("SELECT read_model, position FROM refold.dead_letters").fetchall())
    rows = [
        (name, *astuple(e), discarded.get((name, e.position)))
        for name, events in invalid_events.items()
        for e in events
        if (name, e.position) not in known
    ]
    if rows:
        connection.executemany("INSERT INTO refold.dead_letters VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


@dataclass(frozen=True, slots=True)
class TableSummary:
    """One read model of a finished database.

    Attributes:
        name: name of the table.
        fingerprint: fingerprint of its declaration.
        position: position of its last event.
        rows: number of rows.
        checksum: checksum of all rows, independent of their order.
        erasures: number of the log's erasures when its events were read.
    """

    name: str
    fingerprint: str
    position: int
    rows: int
    checksum: str
    erasures: int


def finish(connection: duckdb.DuckDBPyConnection, domain: Domain) -> list[TableSummary]:
    """Count and checksum every table, and write a checkpoint of the file to disk."""
    position = get_checkpoint(connection).position
    held = set(tables(connection))
    for model in (m for m in domain.read_models if m.name in held):
        rows, checksum = table_checksum(connection, quote(model.name), list(model.table))
        connection.execute(
            "UPDATE refold.projections SET rows = ?, checksum = ?, position = ? WHERE name = ?",
            [rows, checksum, position, model.name],
        )
    connection.execute("CHECKPOINT")
    found = connection.execute(
        "SELECT name, fingerprint, position, rows, checksum, coalesce(erasures, 0) FROM refold.projections ORDER BY 1"
    ).fetchall()
    return [TableSummary(*row) for row in found]


def table_checksum(connection: duckdb.DuckDBPyConnection, relation: str, names: Sequence[str]) -> tuple[int, str]:
    """Count rows, and sum their hashes modulo 2^64: equal for equal rows, in any order.

    The hash is DuckDB's own, twenty times as fast as a portable one. It may change with DuckDB's version, so the
    checksum begins with the version; checksums of different versions are not comparable.

    Args:
        connection: connection on which the relation can be queried.
        relation: table or subquery.
        names: its columns, in the order of the declaration.
    """
    row = connection.execute(
        f"SELECT count(*), coalesce(sum(hash({columns(names)})::HUGEINT), 0) % (1::HUGEINT << 64) FROM {relation}"
    ).fetchone()
    assert row is not None
    return int(row[0]), f"{duckdb.__version__}-{int(row[1]):016x}"
