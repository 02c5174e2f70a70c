"""One chunk of foreign rows becomes typed events, sorted by bucket, and the rows that could not.

Every worker has a checker of its own, with a database in memory. A chunk is looked at in three steps: the envelope of
every row; which shapes there are, and which streams, with their buckets; then the payloads, which are documents or
typed columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from event_schemas import ContractError, RefoldError, Registry
from event_schemas.registry import Shape
from pipelines.ingesting.check_documents import Documents
from pipelines.ingesting.check_typed import read_typed
from pipelines.ingesting.chunk import Chunk
from pipelines.ingesting.desk import KEPT, Desk, Told, same
from pipelines.ingesting.envelope import NEWEST
from pipelines.ingesting.mapping import ColumnMapping, TypeName
from warehouse.event_log.spool import Partitioned


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a chunk.

    Attributes:
        parts: shape to its events; positions count from 1 within the chunk.
        events: how many events.
        wrong: row to why it could not become an event.
    """

    parts: dict[Shape, Partitioned]
    events: int
    wrong: dict[int, str]


class Checker:
    """Checks chunks, one after the other.

    Args:
        connection: a database for its own use.
        registry: the contracts.
        mapping: of the file's columns.
        bucket_count: of the log.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, registry: Registry, mapping: ColumnMapping, *, bucket_count: int
    ) -> None:
        self._desk = Desk(connection, registry, mapping)
        self._bucket_count = bucket_count
        self._documents = Documents(self._desk)

    def check(self, chunk: Chunk, explain: Callable[[int], str]) -> Checked:
        """Make events of a chunk.

        Args:
            chunk: as :func:`~pipelines.ingesting.chunk.load_chunk` made it on the same connection.
            explain: why a row that cannot be read is no event; empty for a blank one.
        """
        desk, wrong = self._desk, dict(chunk.broken)
        if chunk.documents:
            desk.run(f"CREATE OR REPLACE TEMP TABLE {KEPT} AS FROM {chunk.rows}")
        rows = KEPT if chunk.documents else chunk.rows
        desk.run(
            "CREATE OR REPLACE TEMP TABLE _told AS SELECT stream_id, _type, _version, _structure, "
            f"count(*) FILTER (_wrong IS NULL) AS n_good, count(_wrong) AS n_wrong FROM {rows} GROUP BY ALL"
        )
        if desk.rows("SELECT 1 FROM _told WHERE n_wrong > 0 LIMIT 1"):
            found = desk.rows(f"SELECT _row, _wrong FROM {rows} WHERE _wrong IS NOT NULL")
            wrong |= {row: reason or explain(row) for row, reason in found}
        shapes = self._shapes(rows, wrong)
        desk.run(
            "CREATE OR REPLACE TEMP TABLE _buckets AS SELECT stream_id AS _stream, "
            f"(md5_number_lower(stream_id) % {self._bucket_count})::USMALLINT AS _bucket "
            "FROM (SELECT DISTINCT stream_id FROM _told WHERE n_good > 0)"
        )
        if chunk.documents:
            tables = {shape: self._documents.read(chunk, shape, told, wrong) for shape, told in shapes.items()}
        else:
            tables = read_typed(desk, chunk, shapes, wrong)
        for table in (KEPT, "_told", "_buckets"):
            desk.run(f"DROP TABLE IF EXISTS {table}")
        return _positioned(tables, chunk.count, wrong)

    def _shapes(self, rows: str, wrong: dict[int, str]) -> dict[Shape, list[Told]]:
        """Find which shapes there are, and note the rows of those that the domain does not know."""
        found = self._desk.rows("SELECT DISTINCT _type, _version, _structure FROM _told WHERE n_good > 0 ORDER BY ALL")
        shapes: dict[Shape, list[Told]] = {}
        unknown: dict[tuple[str, int], tuple[Told, str]] = {}
        for told in (Told(*row) for row in found):
            shape = self._shape(told)
            try:
                self._desk.registry.schema(*shape)
            except ContractError as error:
                unknown[told.type, told.version] = (told, str(error).split(". ")[0])
            else:
                shapes.setdefault(shape, []).append(told)
        for told, reason in unknown.values():
            query = f"SELECT _row FROM {rows} WHERE _wrong IS NULL AND {same([told])}"
            wrong |= {row: reason for (row,) in self._desk.rows(query)}
        return shapes

    def _shape(self, told: Told) -> Shape:
        named = self._desk.mapping.types.get(told.type, TypeName(event_type=told.type))
        version = told.version if named.schema_version is None else named.schema_version
        newest = self._desk.registry.newest(named.event_type) if version == NEWEST else None
        return newest or (named.event_type, version)


def _positioned(tables: dict[Shape, pa.Table], count: int, wrong: dict[int, str]) -> Checked:
    """Number the events of a chunk in the order of its rows, without gaps for those that are wrong."""
    gone = np.sort(np.fromiter(wrong, np.int64, len(wrong)))
    parts = {}
    for shape, table in tables.items():
        row = table["_row"].to_numpy()
        position = pa.array(row + 1 - np.searchsorted(gone, row), pa.int64())
        rows = table.drop_columns(["_row", "_bucket"]).add_column(0, "position", position)
        parts[shape] = Partitioned(rows, table["_bucket"].to_numpy())
    events = sum(len(p.buckets) for p in parts.values())
    if events + len(wrong) != count:
        raise RefoldError(
            f"Of {count} rows {events} became events, {len(wrong)} were found wrong: a mistake in refold."
        )
    return Checked(parts, events, {row: reason for row, reason in wrong.items() if reason})
