"""What a log already has of the streams of an import: versions and event ids, looked up many streams at a time."""

from __future__ import annotations

from collections.abc import Collection

import duckdb
import pyarrow as pa

from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.event_log.heads import heads_path
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.manifest import HeadsRun, Segment
from refold.warehouse.event_log.seal import based

_TAIL = "_tail_heads"


def load_tail(connection: duckdb.DuckDBPyConnection, head: Head) -> None:
    """Register the stream versions of unsealed ordinary commits on a connection."""
    versions: dict[str, int] = {}
    for info in head.tail:
        versions |= info.heads
    table = pa.table(
        {"stream_id": pa.array(versions, pa.string()), "stream_version": pa.array(versions.values(), pa.int64())}
    )
    connection.register(_TAIL, table)


def stream_heads(log: EventLog, head: Head, buckets: Collection[int]) -> str:
    """Return the relation of (stream_id, stream_version) of some buckets; a stream may have several rows.

    Args:
        log: the log.
        head: the end of the log, which :func:`load_tail` has registered on the connection.
        buckets: buckets of the streams.
    """
    runs: list[HeadsRun] = [*head.sealed.heads, *(run for info in head.tail for run in info.heads_runs)]
    paths = [heads_path(log, run) for run in runs if run.bucket in buckets]
    sealed = f" UNION ALL SELECT stream_id, stream_version FROM {parquet_relation(paths)}" if paths else ""
    return f"(SELECT stream_id, stream_version FROM {_TAIL}{sealed})"


def stream_versions(
    connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head, streams: Collection[str]
) -> dict[str, int]:
    """Look up the last versions of many streams; unknown streams are absent from the result."""
    load_tail(connection, head)
    connection.register("_wanted_streams", pa.table({"stream_id": pa.array(streams, pa.string())}))
    known = stream_heads(log, head, range(log.bucket_count))
    query = f"SELECT stream_id, max(stream_version) FROM {known} SEMI JOIN _wanted_streams USING (stream_id) GROUP BY 1"
    return dict(connection.execute(query).fetchall())


def known_events(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    head: Head,
    buckets: Collection[int],
    *,
    commit: int,
    position: int,
) -> list[str]:
    """Return the relations of (stream_id, event_id) of some buckets, up to a commit.

    Args:
        connection: any DuckDB connection; nothing is read yet.
        log: the log.
        head: the end of the log.
        buckets: buckets of the streams.
        commit: number of the last commit.
        position: last position of that commit.
    """
    ordinary = [info.number for info in head.tail if info.import_id is None and info.number <= commit]
    segments: list[Segment] = [
        *head.sealed.segments,
        *(based(s, info) for info in head.tail if info.number <= commit for s in info.segments),
    ]
    by_base: dict[int, list[Segment]] = {}
    for segment in segments:
        if segment.bucket in buckets:
            by_base.setdefault(segment.position_base, []).append(segment)
    relations = [
        f"SELECT stream_id, event_id FROM {parquet_relation([log.segment_path(s) for s in some])} "
        f"WHERE position <= {position - base}"
        for base, some in by_base.items()
    ]
    if ordinary:
        relations.append(f"SELECT stream_id, event_id FROM {parquet_relation(log.commit_paths(ordinary))}")
    return relations
