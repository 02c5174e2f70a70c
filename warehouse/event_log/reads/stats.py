"""Statistics of a log: events and bytes of every event type and schema version, streams, unsealed events.

Sealed history is counted from the manifest alone. Unsealed commits are scanned, since their footers have no event
types; runs of stream heads are opened only where streams may be in several of them.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import first_line
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import HeadsRun, Segment
from refold.warehouse.event_log.reads.scan import from_microseconds, live_segments

_FILES_PER_QUERY = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStats:
    """Statistics of one event type and schema version.

    Attributes:
        event_type: the event type.
        schema_version: the schema version.
        events: number of events.
        bytes: size of their segments; for unsealed events, the length of their payloads.
        first_position: position of the first event.
        last_position: position of the last event.
        first_recorded_at: earliest ``recorded_at``; None if a segment was written before segments had it.
        last_recorded_at: latest ``recorded_at``; None in the same case.
        segments: number of segments.
        untyped: number of events in untyped segments, because they matched no contract when they were sealed.
        unsealed: number of events in unsealed commits.
    """

    event_type: str
    schema_version: int
    events: int
    bytes: int
    first_position: int
    last_position: int
    first_recorded_at: datetime | None
    last_recorded_at: datetime | None
    segments: int = 0
    untyped: int = 0
    unsealed: int = 0

    @property
    def schema_key(self) -> SchemaKey:
        """Event type and schema version."""
        return (self.event_type, self.schema_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStats:
    """Statistics of a log.

    Attributes:
        schemas: statistics of every event type and schema version, sorted.
        events: number of events.
        bytes: sum of the bytes of ``schemas``.
        streams: number of streams.
        commits: number of the last commit.
        segments: number of live segments.
        archived_bytes: of the bytes, those in the archive.
        sealed_position: position up to which the log is sealed.
        unsealed_commits: number of unsealed commits.
        unsealed_events: number of events in unsealed commits.
    """

    schemas: tuple[SchemaStats, ...]
    events: int
    bytes: int
    streams: int
    commits: int
    segments: int
    archived_bytes: int
    sealed_position: int
    unsealed_commits: int
    unsealed_events: int


def stats(log: EventLog, *, head: Head | None = None) -> LogStats:
    """Count the events and streams of a log.

    Args:
        log: the log.
        head: the end of the log, if the caller has it.

    Raises:
        DamagedLogError: an unsealed commit or a run of stream heads is missing or truncated.

    Example:
        >>> import tempfile
        >>> from refold.event_schemas import Registry, event
        >>> from refold.warehouse.event_log import Appender, create_log
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = create_log(folder, domain_name="doors")
        ...     appended = Appender(log, Registry(events=[DoorOpened])).append("door-1", [DoorOpened(door="front")])
        ...     found = stats(log)
        >>> found.events, found.streams, found.schemas[0].event_type
        (1, 1, 'DoorOpened')
    """
    head = head or log.head()
    by_schema_key: dict[SchemaKey, list[SchemaStats]] = {}
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, connect(temp_directory=folder) as connection:
        try:
            parts = [*map(_of_segment, live_segments(head)), *_of_tail(connection, log, head)]
            streams = _count_streams(connection, log, head)
        except duckdb.Error as error:
            raise DamagedLogError(
                f"The log {log.url} cannot be read: {first_line(error)} Run `refold events verify`, and restore the "
                "object that it names from a backup of the store."
            ) from error
    for part in parts:
        by_schema_key.setdefault(part.schema_key, []).append(part)
    schemas = tuple(_summed(by_schema_key[schema_key]) for schema_key in sorted(by_schema_key))
    return LogStats(
        schemas=schemas,
        events=sum(s.events for s in schemas),
        bytes=sum(s.bytes for s in schemas),
        streams=streams,
        commits=head.commit,
        segments=sum(s.segments for s in schemas),
        archived_bytes=sum(s.bytes for s in head.sealed.segments if s.archive),
        sealed_position=head.sealed.sealed_position,
        unsealed_commits=len(head.tail),
        unsealed_events=head.position - head.sealed.sealed_position,
    )


def _of_segment(segment: Segment) -> SchemaStats:
    return SchemaStats(
        event_type=segment.event_type,
        schema_version=segment.schema_version,
        events=segment.rows,
        bytes=segment.bytes,
        first_position=segment.first_position + segment.position_base,
        last_position=segment.last_position + segment.position_base,
        first_recorded_at=_time(segment.first_recorded_at),
        last_recorded_at=_time(segment.last_recorded_at),
        segments=1,
        untyped=segment.rows if segment.untyped else 0,
    )


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _of_tail(connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head) -> list[SchemaStats]:
    infos = [info for info in head.tail if info.import_id is None]
    found = []
    for i in range(0, len(infos), _FILES_PER_QUERY):
        committed = parquet_relation(log.commit_paths(infos[i : i + _FILES_PER_QUERY]))
        rows = connection.execute(
            "SELECT event_type, schema_version, count(*), sum(strlen(payload)), min(position), max(position), "
            "epoch_us(min(recorded_at)), epoch_us(max(recorded_at)) "
            f"FROM {committed} GROUP BY ALL"
        ).fetchall()
        found += [
            SchemaStats(
                event_type=event_type,
                schema_version=schema_version,
                events=events,
                bytes=int(size),
                first_position=first,
                last_position=last,
                first_recorded_at=from_microseconds(earliest),
                last_recorded_at=from_microseconds(latest),
                unsealed=events,
            )
            for event_type, schema_version, events, size, first, last, earliest, latest in rows
        ]
    return found


def _summed(parts: list[SchemaStats]) -> SchemaStats:
    earliest = [p.first_recorded_at for p in parts]
    latest = [p.last_recorded_at for p in parts]
    return SchemaStats(
        event_type=parts[0].event_type,
        schema_version=parts[0].schema_version,
        events=sum(p.events for p in parts),
        bytes=sum(p.bytes for p in parts),
        first_position=min(p.first_position for p in parts),
        last_position=max(p.last_position for p in parts),
        first_recorded_at=None if None in earliest else min(t for t in earliest if t),
        last_recorded_at=None if None in latest else max(t for t in latest if t),
        segments=sum(p.segments for p in parts),
        untyped=sum(p.untyped for p in parts),
        unsealed=sum(p.unsealed for p in parts),
    )


def _count_streams(connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head) -> int:
    runs: defaultdict[int, list[HeadsRun]] = defaultdict(list)
    for run in (*head.sealed.heads, *(r for info in head.tail for r in info.heads_runs)):
        runs[run.bucket].append(run)
    in_tail: defaultdict[int, set[str]] = defaultdict(set)
    for stream_id in {s for info in head.tail for s in info.heads}:
        in_tail[bucket_of(stream_id, head.sealed.bucket_count)].add(stream_id)
    return sum(_count_bucket(connection, log, runs[b], in_tail[b]) for b in runs.keys() | in_tail.keys())


def _count_bucket(connection: duckdb.DuckDBPyConnection, log: EventLog, runs: list[HeadsRun], tail: set[str]) -> int:
    if not runs:
        return len(tail)
    if len(runs) == 1 and not tail:
        return runs[0].rows
    connection.register("_tail_streams", pa.table({"stream_id": pa.array(sorted(tail), pa.string())}))
    sealed = parquet_relation([log.heads_path(run) for run in runs])
    [(count,)] = connection.execute(
        "SELECT count(DISTINCT stream_id) FROM "
        f"(SELECT stream_id FROM {sealed} UNION ALL SELECT stream_id FROM _tail_streams)"
    ).fetchall()
    return int(count)
