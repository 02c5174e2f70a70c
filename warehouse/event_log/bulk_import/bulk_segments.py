"""Bulk import: a history is written as segments, and one commit that names them makes it part of the log.

The spool (``spool.py``) holds the history by bucket. Each bucket is sorted by stream and written as segments. An import
gets its commit number only at the end, so positions in its segments are relative, and its streams must be new.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refold.event_schemas import LogError, Registry
from refold.event_schemas.envelope import UTC_MICROSECONDS
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.event_log import commit
from refold.warehouse.event_log.bulk_import.existing_streams import load_tail, stream_heads
from refold.warehouse.event_log.bulk_import.spool import (
    Batch,
    Spooled,
    read_spool,
)
from refold.warehouse.event_log.clocks import next_recorded_at
from refold.warehouse.event_log.columns import write_parquet
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import HeadsRun, Segment
from refold.warehouse.event_log.seal import SealedBuckets
from refold.warehouse.event_log.segments import (
    ROW_GROUP_ROWS,
    SEGMENT_ENVELOPE,
    describe_heads,
    describe_segment,
)

_COMMIT_NAMESPACE = uuid.UUID("6d1f8f0e-7d5c-4b07-9d0b-6b8e7a3c51f2")
_PART_BYTES = 256 << 20
"""A larger bucket is written in parts, each a range of streams, so that memory stays bounded."""
_UPLOADS = 8
"""Objects written concurrently: most of the time is latency of the store or disk."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


class StreamsNotNewError(LogError):
    """A stream of the import already has events in the log.

    Attributes:
        stream_id: one such stream.
    """

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        super().__init__(
            f"Stream {stream_id!r} already has events in the log, so this import cannot be published as segments. "
            "Import it through ordinary commits."
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the attribute."""
        return (StreamsNotNewError, (self.stream_id,))


def build_bucket(log: EventLog, registry: Registry, folder: Path, bucket: int, recorded_at: str) -> SealedBuckets:
    """Write one spooled bucket as segments, and the heads of its streams.

    Args:
        log: the log.
        registry: the contracts.
        folder: folder of the spool.
        bucket: the bucket.
        recorded_at: time at which its events were recorded, RFC 3339.
    """
    spool = read_spool(folder)
    spooled = spool.read_bucket(bucket)
    order = _stream_order(spooled)
    made: dict[Path, Segment] = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as place:
        for index, (schema_key, batches) in enumerate(spooled.items()):
            names = [*SEGMENT_ENVELOPE, *registry.schema(*schema_key).names]
            for part in _parts(order, index, batches):
                path = Path(place) / f"{len(made)}.parquet"
                table = _enveloped(part, recorded_at).select(names)
                metadata = write_parquet(table, path, row_group_rows=ROW_GROUP_ROWS)
                made[path] = describe_segment(
                    path,
                    metadata,
                    schema_key=schema_key,
                    bucket=bucket,
                    unique=_unique(spool, schema_key, bucket, part=len(made)),
                )
        with ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(lambda path: log.store.put_file(made[path].key, path), made))
        run = _write_heads(log, bucket, order.heads, Path(place) / "heads.parquet")
    return SealedBuckets(segments=tuple(made.values()), heads=(run,))


def _unique(spool: Spooled, schema_key: SchemaKey, bucket: int, *, part: int) -> str:
    """Return a name that is the same for a retry of the same work, so that the retry replaces its objects."""
    return str(uuid.uuid5(uuid.UUID(spool.journal.spool_id), f"{schema_key} {bucket} {part}"))


def _write_heads(log: EventLog, bucket: int, heads: pa.Table, path: Path) -> HeadsRun:
    write_parquet(heads, path, row_group_rows=ROW_GROUP_ROWS)
    run = describe_heads(path, bucket, rows=len(heads))
    log.store.put_file(run.key, path)
    return run


@dataclass(frozen=True, slots=True)
class _Order:
    """The events of one bucket in the order of their segments: by stream, then by position.

    Attributes:
        schema: for each event, the index of its schema.
        row: for each event, its row among the spooled rows of its schema.
        position: for each event, its position in the import.
        stream_version: for each event, its version in its stream.
        heads: the streams and their last versions.
    """

    schema: Integers
    row: Integers
    position: Integers
    stream_version: Integers
    heads: pa.Table


def _stream_order(spooled: Mapping[SchemaKey, Sequence[Batch]]) -> _Order:
    batches = [b for of_schema in spooled.values() for b in of_schema]
    position = np.concatenate([b.rows["position"].to_numpy() + b.base for b in batches])
    streams = pa.chunked_array([b.rows["stream_id"] for b in batches]).dictionary_encode().combine_chunks()
    by_name = pc.sort_indices(streams.dictionary).to_numpy()
    rank = np.empty(len(by_name), np.int64)
    rank[by_name] = np.arange(len(by_name))
    stream = rank[streams.indices.to_numpy()]
    order = np.lexsort((position, stream))
    stream = stream[order]
    first = np.flatnonzero(np.diff(stream, prepend=-1))
    sizes = np.diff(first, append=len(stream))
    rows = [sum(b.rows.num_rows for b in of_schema) for of_schema in spooled.values()]
    return _Order(
        schema=np.repeat(np.arange(len(rows)), rows)[order],
        row=np.concatenate([np.arange(n) for n in rows])[order],
        position=position[order],
        stream_version=np.arange(1, len(stream) + 1) - np.repeat(first, sizes),
        heads=pa.table({"stream_id": streams.dictionary.take(pa.array(by_name)), "stream_version": sizes}),
    )


def _parts(order: _Order, schema: int, batches: Sequence[Batch]) -> Iterator[pa.Table]:
    """Yield the events of one schema in order, in as many parts as keep memory bounded."""
    table = pa.Table.from_batches([b.rows for b in batches])
    indexes = np.flatnonzero(order.schema == schema)
    parts = max(1, -(-table.nbytes // _PART_BYTES))
    for picked in np.array_split(indexes, parts):
        rows = table.take(pa.array(order.row[picked]))
        rows = rows.set_column(0, "position", pa.array(order.position[picked]))
        yield rows.append_column("stream_version", pa.array(order.stream_version[picked]))


def _enveloped(rows: pa.Table, recorded_at: str) -> pa.Table:
    constants = {
        "commit_number": pa.scalar(0, pa.int64()),
        "recorded_at": pa.scalar(datetime.fromisoformat(recorded_at), UTC_MICROSECONDS),
    }
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(value, len(rows)))
    return rows


def publish_import(
    log: EventLog, import_id: str, events: int, built: Sequence[SealedBuckets], *, bucket_count: int
) -> CommitInfo:
    """Make an import part of the log, with one commit that names its segments.

    Args:
        log: the log.
        import_id: identity of the import; publishing it again returns the first commit.
        events: number of events in its segments.
        built: its buckets.
        bucket_count: how many buckets they were built for.

    Raises:
        LogError: the log has another bucket count now; nothing was published.
        StreamsNotNewError: a stream of the import already has events; nothing was published.
    """
    log.check_writable()
    heads = tuple(h for b in built for h in b.heads)
    segments = tuple(s for b in built for s in b.segments)
    while True:
        head = log.head()
        if (found := find_import(log, head, import_id)) is not None:
            return found
        if head.sealed.bucket_count != bucket_count:
            raise LogError(
                f"The log {log.url} has {head.sealed.bucket_count} buckets now, but the import began when it had "
                f"{bucket_count}. Nothing was published; run the import again."
            )
        with connect() as connection:
            if overlap := existing_streams(connection, log, head, heads):
                raise StreamsNotNewError(overlap[0])
        info = CommitInfo(
            number=head.commit + 1,
            uuid=str(uuid.uuid5(_COMMIT_NAMESPACE, import_id)),
            first_position=head.position + 1,
            last_position=head.position + events,
            recorded_at=next_recorded_at(log.store, head.commit, head.last_recorded_at),
            previous=head.end.digest,
            segments=segments,
            heads_runs=heads,
            import_id=import_id,
            bucket_count=bucket_count,
        )
        info, data = commit.encode(info, ())
        if log.store.put_if_absent(commit_key(info.number), data):
            return info


def find_import(log: EventLog, head: Head, import_id: str) -> CommitInfo | None:
    """Return the commit of an import, or None if it was not published."""
    for info in head.tail:
        if info.import_id == import_id:
            return info
    number = head.sealed.imports.get(import_id)
    return log.commit_info(number) if number is not None else None


def existing_streams(
    connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head, runs: Sequence[HeadsRun], *, limit: int = 1
) -> list[str]:
    """Return streams of an import that already have events in the log.

    Args:
        connection: any DuckDB connection.
        log: the log.
        head: the end of the log.
        runs: the stream heads of the import.
        limit: maximum number of streams to return.
    """
    if not head.position:
        return []
    load_tail(connection, head)
    for bucket in sorted({r.bucket for r in runs}):
        mine = parquet_relation([log.heads_path(r) for r in runs if r.bucket == bucket])
        if found := _overlap(connection, log, head, bucket, mine, limit):
            return found
    return []


def overlapping_stream(log: EventLog, head: Head, spooled: Spooled) -> str | None:
    """Return a stream of a spooled import that already has events in the log, if there is one."""
    if not head.position:
        return None
    with connect() as connection:
        load_tail(connection, head)
        for bucket in spooled.buckets():
            batches = [b.rows for of_schema in spooled.read_bucket(bucket).values() for b in of_schema]
            streams = pa.chunked_array([rows["stream_id"] for rows in batches])
            connection.register("_spooled_streams", pa.table({"stream_id": streams}))
            if found := _overlap(connection, log, head, bucket, "_spooled_streams", 1):
                return found[0]
    return None


def _overlap(
    connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head, bucket: int, mine: str, limit: int
) -> list[str]:
    known = stream_heads(log, head, [bucket])
    query = f"SELECT DISTINCT stream_id FROM {mine} SEMI JOIN {known} USING (stream_id) LIMIT {limit}"
    return [row[0] for row in connection.execute(query).fetchall()]
