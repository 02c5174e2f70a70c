"""Segments: sealed history in typed Parquet files, each of one event type, schema version and bucket."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import duckdb
import pyarrow as pa
from pyarrow.parquet import FileMetaData

from refold.event_schemas import ENVELOPE, Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.parquet_files import (
    copy_partitioned,
    parquet_footer,
    parquet_relation,
    parquet_schema,
)
from refold.warehouse.engine.sql import columns, literal, quote
from refold.warehouse.event_log.layout import bucket_sql, heads_key, segment_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Segment
from refold.warehouse.event_log.written_segments import check_written
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.digests import file_digest

SEGMENT_ENVELOPE = tuple(n for n in ENVELOPE.names if n not in ("event_type", "schema_version"))
"""Envelope columns of a segment; the other two are Hive partitions of its path."""

ROW_GROUP_ROWS = 122_880
"""DuckDB's own row group size: it reads one row group per thread."""

PARQUET_OPTIONS = f"COMPRESSION zstd, COMPRESSION_LEVEL 1, PARQUET_VERSION v2, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
"""Options of ``COPY`` for all segments and stream heads."""


def write_segments(
    connection: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    *,
    bucket_count: int,
    schema_key: SchemaKey,
    relation: str,
    payload: pa.Schema,
    untyped: bool = False,
) -> list[Segment]:
    """Write a relation of events of one schema as segments, one for each bucket, sorted by stream.

    The files are read again before they are stored, so that they hold what was written.

    Args:
        connection: connection of one thread, on which ``relation`` can be queried.
        store: the log's store.
        bucket_count: number of buckets.
        schema_key: event type and schema version.
        relation: SQL relation with the envelope and the payload's columns.
        payload: the payload's columns.
        untyped: whether the payload is one column of JSON text.

    Raises:
        WrittenSegmentError: a file differs from the relation, or a required column has a NULL.
    """
    fields = [*(ENVELOPE.field(n) for n in SEGMENT_ENVELOPE), *payload]
    bucket = bucket_sql(bucket_count)
    select = f"SELECT {columns(f.name for f in fields)}, {bucket} AS _bucket FROM {relation} ORDER BY _bucket, "
    made = []
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        paths = copy_partitioned(
            connection, f"{select} stream_id, stream_version", Path(folder), PARQUET_OPTIONS, by="_bucket"
        )
        check_written(connection, relation, bucket, paths, fields, what=f"{schema_key[0]} v{schema_key[1]}")
        for bucket_number, path in paths.items():
            footer = parquet_footer(path)
            made.append(describe_segment(path, footer, schema_key=schema_key, bucket=bucket_number, untyped=untyped))
            store.put_file(made[-1].key, path)
    return made


def describe_segment(
    path: Path,
    metadata: FileMetaData,
    *,
    schema_key: SchemaKey,
    bucket: int,
    untyped: bool = False,
    unique: str | None = None,
) -> Segment:
    """Describe a segment in a local file, for the manifest, with the key under which to store it.

    Args:
        path: path of the file.
        metadata: its footer.
        schema_key: event type and schema version.
        bucket: bucket of all its streams.
        untyped: whether the payload is one column of JSON text.
        unique: unique part of its key; a random UUID by default.
    """
    first, last = _range(metadata, "position")
    earliest, latest = _range(metadata, "recorded_at")
    event_type = url_quote(schema_key[0], safe="")
    return Segment(
        key=segment_key(event_type, schema_key[1], bucket, f"{first:020d}-{last:020d}-{unique or uuid.uuid4()}"),
        event_type=schema_key[0],
        schema_version=schema_key[1],
        bucket=bucket,
        rows=metadata.num_rows,
        bytes=path.stat().st_size,
        first_position=first,
        last_position=last,
        first_recorded_at=earliest.isoformat(),
        last_recorded_at=latest.isoformat(),
        untyped=untyped,
        checksum=file_digest(path),
        column_bytes=_column_bytes(metadata),
    )


def _range(metadata: FileMetaData, column: str) -> tuple[Any, Any]:
    index = SEGMENT_ENVELOPE.index(column)
    groups = [metadata.row_group(g).column(index).statistics for g in range(metadata.num_row_groups)]
    return min(s.min for s in groups), max(s.max for s in groups)


def _column_bytes(metadata: FileMetaData) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            column = group.column(c)
            name = column.path_in_schema.split(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_compressed_size
    return sizes


def segment_relations(log: EventLog, segments: Iterable[Segment], registry: Registry) -> dict[SchemaKey, str]:
    """Return the relation of all typed segments of each schema: envelope, ``_ordinal`` and payload.

    Raises:
        DamagedLogError: a segment is missing or truncated.
    """
    by_schema_key: dict[SchemaKey, dict[tuple[int, int], list[Path]]] = {}
    for segment in segments:
        if not segment.untyped:
            bases = by_schema_key.setdefault(segment.schema_key, {})
            bases.setdefault((segment.position_base, segment.commit_base), []).append(log.segment_path(segment))
    return {
        schema_key: _union(
            _scan(schema_key, base, paths, ["0::BIGINT AS _ordinal", *map(quote, registry.schema(*schema_key).names)])
            for base, paths in sorted(bases.items())
        )
        for schema_key, bases in by_schema_key.items()
    }


def untyped_relation(log: EventLog, segments: Iterable[Segment], registry: Registry) -> str | None:
    """Return the relation of untyped segments, and of typed ones whose schema is no longer declared, as commit rows.

    Returns:
        SQL, or None if there are no such segments.
    """
    parts = []
    for segment in segments:
        base = (segment.position_base, segment.commit_base)
        if segment.untyped:
            parts.append(_scan(segment.schema_key, base, [log.segment_path(segment)], ["payload"]))
        elif not registry.knows(segment.schema_key):
            parts.append(_untyped(segment, base, log.segment_path(segment)))
    return _union(parts) if parts else None


def stored_relation(segment: Segment, path: Path) -> tuple[str, pa.Schema]:
    """Return the relation of a segment's events as they are stored, whatever the contracts, and its payload's columns.

    Args:
        segment: the segment.
        path: its file.
    """
    payload = pa.schema(f.with_nullable(True) for f in parquet_schema(path) if f.name not in SEGMENT_ENVELOPE)
    base = (segment.position_base, segment.commit_base)
    return _scan(segment.schema_key, base, [path], map(quote, payload.names)), payload


def _untyped(segment: Segment, base: tuple[int, int], path: Path) -> str:
    names = [n for n in parquet_schema(path).names if n not in SEGMENT_ENVELOPE]
    text = f"to_json(struct_pack({columns(names)}))::VARCHAR" if names else "'{}'"
    scan = _scan(segment.schema_key, base, [path], map(quote, names))
    return f"(SELECT {columns(ENVELOPE.names)}, {text} AS payload FROM {scan})"


def _scan(schema_key: SchemaKey, base: tuple[int, int], paths: list[Path], payload: Iterable[str]) -> str:
    based = {"position": base[0], "commit_number": base[1]}
    constants = {"event_type": literal(schema_key[0]), "schema_version": f"{schema_key[1]}::INTEGER"}
    selected = []
    for name in ENVELOPE.names:
        if name in constants:
            selected.append(f"{constants[name]} AS {name}")
        else:
            selected.append(f"{name} + {based[name]} AS {name}" if based.get(name) else name)
    return f"(SELECT {', '.join([*selected, *payload])} FROM {parquet_relation(paths)})"


def _union(relations: Iterable[str]) -> str:
    parts = list(relations)
    return parts[0] if len(parts) == 1 else "(" + " UNION ALL ".join(f"FROM {p}" for p in parts) + ")"


def write_heads(
    connection: duckdb.DuckDBPyConnection, store: ObjectStore, *, bucket_count: int, relation: str
) -> list[HeadsRun]:
    """Write a relation of (stream_id, stream_version) as runs of stream heads, one for each bucket.

    A run has one row for each stream. The connection has one thread.
    """
    select = (
        f"SELECT stream_id, max(stream_version) AS stream_version, {bucket_sql(bucket_count)} AS _bucket "
        f"FROM {relation} GROUP BY stream_id ORDER BY _bucket, stream_id"
    )
    made = []
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        paths = copy_partitioned(connection, select, Path(folder), PARQUET_OPTIONS, by="_bucket")
        for bucket, path in paths.items():
            made.append(describe_heads(path, bucket, rows=parquet_footer(path).num_rows))
            store.put_file(made[-1].key, path)
    return made


def describe_heads(path: Path, bucket: int, *, rows: int) -> HeadsRun:
    """Describe a run of stream heads in a local file, for the manifest, with the key under which to store it."""
    return HeadsRun(
        key=heads_key(bucket, str(uuid.uuid4())),
        bucket=bucket,
        rows=rows,
        bytes=path.stat().st_size,
        checksum=file_digest(path),
    )
