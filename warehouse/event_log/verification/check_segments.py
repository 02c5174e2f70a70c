"""Checks of single segments: against the manifest, their checksum and the contracts."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote as url_quote

import duckdb
import pyarrow as pa
from pyarrow.parquet import FileMetaData

from refold.event_schemas import ENVELOPE, ObjectNotFoundError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.parquet_files import column_range, columns_without_null, parquet_footer, parquet_relation
from refold.warehouse.engine.sql import duckdb_type, first_line, null_in_required, quote
from refold.warehouse.event_log.commit import COMMIT_SCHEMA
from refold.warehouse.event_log.layout import segment_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.event_log.segments import SEGMENT_ENVELOPE
from refold.warehouse.event_log.verification.findings import MAX_EXAMPLES, REPAIR, Findings
from refold.warehouse.event_log.written_segments import missing_values
from refold.warehouse.object_store.digests import file_digest

Column = tuple[str, str]
"""Name and DuckDB type."""


class SegmentCheck:
    """Checks segments one by one.

    Args:
        connection: any DuckDB connection.
        log: the log.
        registry: the contracts.
        findings: collects what is wrong.
        columns_in: Parquet schema to the columns in which DuckDB reads it; filled, and shared by several.

    Attributes:
        sound: keys of the segments in which nothing is wrong.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        log: EventLog,
        registry: Registry,
        findings: Findings,
        columns_in: dict[str, list[Column]],
    ) -> None:
        self._connection = connection
        self._log = log
        self._registry = registry
        self._findings = findings
        self.sound: set[str] = set()
        self._columns_of: dict[tuple[SchemaKey, bool], list[Column]] = {}
        self._columns_in = columns_in

    def check(self, segment: Segment) -> Path | None:
        """Check one segment.

        Returns:
            Its local path, or None if its rows are unusable.
        """
        before = self._findings.count
        path = self._check(segment)
        if self._findings.count == before:
            self.sound.add(segment.key)
        return path

    def _check(self, segment: Segment) -> Path | None:
        where = self._log.url_of(segment)
        content = (
            f"{segment.rows} events of {segment.event_type} v{segment.schema_version}, positions "
            f"{segment.first_position + segment.position_base} to {segment.last_position + segment.position_base}"
        )
        try:
            path = self._log.store_of(segment).local_path(segment.key)
        except ObjectNotFoundError:
            self._findings.add("segment", where, f"missing, but the manifest names it ({content})", REPAIR)
            return None
        if (size := path.stat().st_size) != segment.bytes:
            self._findings.add(
                "segment",
                where,
                f"{size} bytes, expected {segment.bytes}: truncated or overwritten ({content})",
                REPAIR,
            )
            return None
        if segment.checksum and file_digest(path) != segment.checksum:
            what = f"its SHA-256 differs from the manifest's: it was changed ({content})"
            self._findings.add("segment", where, what, REPAIR)
            return None
        try:
            self._check_content(segment, path, where)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            self._findings.add("segment", where, f"it cannot be read: {first_line(error)} ({content})")
            return None
        return path

    def _check_content(self, segment: Segment, path: Path, where: str) -> None:
        name = segment.key.rsplit("/", 1)[-1].removesuffix(".parquet")
        key = segment_key(url_quote(segment.event_type, safe=""), segment.schema_version, segment.bucket, name)
        if key != segment.key:
            self._findings.add("manifest", where, f"its key in the manifest differs from its content; expected {key}")
        footer = parquet_footer(path)
        has_contract = self._check_schema(segment, self._stored_columns(path, footer), where)
        fields = self._fields(segment.schema_key, untyped=segment.untyped) if has_contract else []
        missing, nulls = missing_values(fields), 0
        real = [footer.num_rows, *(column_range(footer, "position") or ())]
        # The checksum was right, so the statistics are those of the values.
        has_nulls = {f.name for f in fields if null_in_required(f.name, f)} - columns_without_null(footer)
        if not segment.checksum or has_nulls or len(real) < 3:
            select = f"SELECT count(*), min(position), max(position), count({missing}) FROM {parquet_relation([path])}"
            [(*real, nulls)] = self._connection.execute(select).fetchall()
        if real != (expected := [segment.rows, segment.first_position, segment.last_position]):
            self._findings.add(
                "segment",
                where,
                f"rows, first and last position are {tuple(real)}, the manifest has {tuple(expected)}",
            )
        if nulls:
            self._name_missing(segment, path, missing, where)

    def _name_missing(self, segment: Segment, path: Path, missing: str, where: str) -> None:
        """Name events that have NULL in a required column: a rebuild would show them with values that nobody wrote."""
        rows = self._connection.execute(
            f"SELECT position + {segment.position_base}, {missing} AS missing "
            f"FROM {parquet_relation([path])} "
            f"WHERE missing IS NOT NULL ORDER BY position LIMIT {MAX_EXAMPLES}"
        ).fetchall()
        for position, column in rows:
            self._findings.add(
                "segment",
                where,
                f"the event at position {position} has NULL in the required field {column}",
                "Another version of refold wrote it so. Read the event in the commit that holds the position, and "
                "append it again with its values.",
            )

    def _check_schema(self, segment: Segment, real: list[Column], where: str) -> bool:
        """Check that the columns are those of the contract."""
        if not segment.untyped and not self._registry.knows(segment.schema_key):
            self._findings.add(
                "schema",
                where,
                f"it holds events of {segment.event_type} v{segment.schema_version}, which the domain does not have",
                "Declare the event or its upcaster again, or run the code that does.",
            )
            return False
        expected = self._expected_columns(segment.schema_key, untyped=segment.untyped)
        if real != expected:
            differing = sorted({name for name, _ in set(real) ^ set(expected)})
            self._findings.add(
                "schema",
                where,
                f"its columns differ from those of {segment.event_type} v{segment.schema_version}: {differing}",
                "A contract must not change under its schema version: raise schema_version and add an upcaster.",
            )
        return real == expected

    def _stored_columns(self, path: Path, footer: FileMetaData) -> list[Column]:
        """Return the columns as DuckDB reads them; files of the same Parquet schema have the same."""
        schema = str(footer.schema)
        if schema not in self._columns_in:
            self._columns_in[schema] = _columns(self._connection.sql(f"FROM {parquet_relation([path])}"))
        return self._columns_in[schema]

    def _expected_columns(self, key: SchemaKey, *, untyped: bool) -> list[Column]:
        if (key, untyped) not in self._columns_of:
            fields = self._fields(key, untyped=untyped)
            relation = self._connection.sql(
                "SELECT " + ", ".join(f"NULL::{duckdb_type(f.type)} AS {quote(f.name)}" for f in fields)
            )
            self._columns_of[(key, untyped)] = _columns(relation)
        return self._columns_of[(key, untyped)]

    def _fields(self, key: SchemaKey, *, untyped: bool) -> list[pa.Field]:
        payload = pa.schema([COMMIT_SCHEMA.field("payload")]) if untyped else self._registry.stored_schema(*key)
        return [*(ENVELOPE.field(n) for n in SEGMENT_ENVELOPE), *payload]


def _columns(relation: duckdb.DuckDBPyRelation) -> list[Column]:
    return [(name, str(dtype)) for name, dtype in zip(relation.columns, relation.types, strict=True)]


def check_sizes(log: EventLog, head: Head, findings: Findings) -> int:
    """Check that each segment is there, with its size; return how many are."""
    found = 0
    for segment in live_segments(head):
        where = log.url_of(segment)
        try:
            size = log.store_of(segment).size(segment.key)
        except ObjectNotFoundError:
            findings.add("segment", where, "missing, but the manifest names it", REPAIR)
            continue
        if size == segment.bytes:
            found += 1
        else:
            findings.add("segment", where, f"{size} bytes, expected {segment.bytes}: truncated or overwritten", REPAIR)
    return found
