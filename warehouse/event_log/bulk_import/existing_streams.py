"""What a log already has of the streams of an import: their versions, looked up many streams at a time."""

from __future__ import annotations

from collections.abc import Collection

import duckdb
import pyarrow as pa

from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import HeadsRun

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
    paths = [log.heads_path(run) for run in runs if run.bucket in buckets]
    sealed = f" UNION ALL SELECT stream_id, stream_version FROM {parquet_relation(paths)}" if paths else ""
    return f"(SELECT stream_id, stream_version FROM {_TAIL}{sealed})"


def stream_versions(
    connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head, streams: Collection[str]
) -> dict[str, int]:
    """Look up the last versions of many streams; unknown streams are absent from the result."""
    load_tail(connection, head)
    connection.register("_wanted_streams", pa.table({"stream_id": pa.array(streams, pa.string())}))
    known = stream_heads(log, head, range(head.sealed.bucket_count))
    query = f"SELECT stream_id, max(stream_version) FROM {known} SEMI JOIN _wanted_streams USING (stream_id) GROUP BY 1"
    return dict(connection.execute(query).fetchall())
