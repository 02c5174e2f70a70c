"""One chunk of foreign rows becomes typed events, sorted by bucket, and the rows that could not.

Every worker has a checker of its own, with a database in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import ENVELOPE, RefoldError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.context import BROUGHT, CheckContext, Found
from refold.pipelines.ingest.checks.documents import DocumentReader
from refold.pipelines.ingest.checks.typed_columns import read_typed
from refold.pipelines.ingest.chunk import Columns, Documents
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.warehouse.event_log.bulk_import.spool import Partitioned


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a chunk.

    Attributes:
        parts: shape to its events; positions count from 1 within the chunk.
        events: how many events.
        wrong: row to why it could not become an event.
    """

    parts: dict[SchemaKey, Partitioned]
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
        self._desk = CheckContext(connection, registry, mapping, bucket_count)
        self._documents = DocumentReader(self._desk)

    def check(
        self, chunk: Documents | Columns, *, count: int, broken: Mapping[int, str], explain: Callable[[int], str]
    ) -> Checked:
        """Make events of a chunk.

        Args:
            chunk: as :func:`~refold.pipelines.ingest.chunk.load_chunk` made it on the same connection.
            count: how many rows it has, good and bad.
            broken: rows that could not be read, and why.
            explain: why a document that cannot be read is no event; empty for a blank line.
        """
        wrong = dict(broken)
        if isinstance(chunk, Documents):
            found = self._documents.read(chunk, explain, wrong)
        else:
            found = read_typed(self._desk, chunk, wrong)
        return self._checked(found, count, wrong)

    def _checked(self, found: Found, count: int, wrong: dict[int, str]) -> Checked:
        """Number the events of a chunk in the order of its rows, without gaps for those that are wrong."""
        gone = np.sort(np.fromiter(wrong, np.int64, len(wrong)))
        parts = {}
        for schema_key, table in found.items():
            row = table["_row"].to_numpy()
            position = pa.array(row + 1 - np.searchsorted(gone, row), pa.int64())
            payload = self._desk.registry.schema(*schema_key)
            rows = table.select([*BROUGHT, *payload.names]).cast(_spooled(payload)).add_column(0, "position", position)
            parts[schema_key] = Partitioned(rows, table["_bucket"].to_numpy())
        events = sum(len(p.buckets) for p in parts.values())
        if events + len(wrong) != count:
            raise RefoldError(f"Of {count} rows {events} became events, {len(wrong)} were wrong. This must not be.")
        return Checked(parts, events, {row: reason for row, reason in wrong.items() if reason})


def _spooled(payload: pa.Schema) -> pa.Schema:
    """Give the schema that all parts of a shape have, wherever their columns are from."""
    fields = [*(ENVELOPE.field(name) for name in BROUGHT), *payload]
    return pa.schema([pa.field(f.name, _nullable(f.type)) for f in fields])


def _nullable(dtype: pa.DataType) -> pa.DataType:
    """Let elements and fields be NULL: that they are not was checked, and a cast would check it again, or refuse."""
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_nullable(dtype.value_type)).with_nullable(True))
    if pt.is_struct(dtype):
        inner = (dtype.field(i) for i in range(dtype.num_fields))
        return pa.struct([f.with_type(_nullable(f.type)).with_nullable(True) for f in inner])
    return dtype
