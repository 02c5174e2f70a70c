"""Repair of a log: damaged segments are made again from their commits, and stream heads from the segments.

Whatever cannot be made again is named, and left as it is. The new objects have new keys; one manifest names them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError, LogError, Registry
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import columns, literal
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.commit import COMMIT_SCHEMA, CommitInfo
from refold.warehouse.event_log.layout import bucket_sql
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.event_log.payload_parsing import typed_events
from refold.warehouse.event_log.segments import write_heads, write_segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a repair did.

    Attributes:
        segments: keys of the damaged segments that were made again.
        heads: buckets whose stream heads were made again.
        lost: damaged objects that could not be made again, and why.
        manifest: number of the manifest that names the new objects; None if nothing was made.
    """

    segments: tuple[str, ...] = ()
    heads: tuple[int, ...] = ()
    lost: tuple[str, ...] = ()
    manifest: int | None = None


def repair(log: EventLog, registry: Registry) -> Repaired:
    """Make the damaged segments and stream heads of a log again.

    Args:
        log: the log; appends may go on meanwhile.
        registry: the contracts of the segments.

    Raises:
        LogError: another process sealed the log meanwhile.
        DamagedLogError: the newest manifest cannot be read: nothing says what should be there.
    """
    log.check_writable()
    sealed = log.manifest()
    damaged = [s for s in sealed.segments if not _is_whole(log, s)]
    made: dict[str, Segment] = {}
    lost: list[str] = []
    with connect(threads=1) as connection:
        for segment in damaged:
            try:
                made[segment.key] = _segment_anew(connection, log, registry, sealed, segment)
            except _CannotRepairError as error:
                lost.append(f"Segment {log.url_of(segment)} ({segment.rows} events) cannot be made again: {error}.")
        segments = tuple(made.get(s.key, s) for s in sealed.segments)
        whole = [s for s in segments if s.key not in {d.key for d in damaged} - made.keys()]
        buckets = sorted({h.bucket for h in sealed.heads if not _is_whole(log, h)})
        runs = {}
        for bucket in buckets:
            if any(s.bucket == bucket for s in segments if s not in whole):
                lost.append(f"The stream heads of bucket {bucket} cannot be made again, since a segment of it is lost.")
            else:
                of_bucket = [s for s in whole if s.bucket == bucket]
                runs[bucket] = _heads_anew(connection, log, sealed.bucket_count, of_bucket)
    if not made and not runs:
        return Repaired(lost=tuple(lost))
    heads = (*(h for h in sealed.heads if h.bucket not in runs), *(run for made in runs.values() for run in made))
    following = dataclasses.replace(sealed, number=sealed.number + 1, segments=segments, heads=heads)
    if not manifests.publish(log.store, following):
        raise LogError(f"Another process sealed the log {log.url} meanwhile; nothing was repaired. Try again.")
    return Repaired(segments=tuple(made), heads=tuple(runs), lost=tuple(lost), manifest=following.number)


class _CannotRepairError(Exception):
    """What was lost is nowhere else."""


def _is_whole(log: EventLog, part: Segment | HeadsRun) -> bool:
    try:
        if isinstance(part, Segment):
            log.segment_path(part)
        else:
            log.heads_path(part)
    except DamagedLogError:
        return False
    return True


def _segment_anew(
    connection: duckdb.DuckDBPyConnection, log: EventLog, registry: Registry, sealed: Manifest, segment: Segment
) -> Segment:
    """Write the events of a segment from their commits into a new one."""
    if segment.commit_base:
        raise _CannotRepairError("it came with an import, whose commit has no events; import the file into a new log")
    paths = log.commit_paths(_commits_of(log, segment))
    if not paths:
        raise _CannotRepairError("its commits were removed")
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _lost AS SELECT {columns(COMMIT_SCHEMA.names)} FROM {parquet_relation(paths)} "
        f"WHERE event_type = {literal(segment.event_type)} AND schema_version = {segment.schema_version} "
        f"AND {bucket_sql(sealed.bucket_count)} = {segment.bucket} "
        f"AND position BETWEEN {segment.first_position} AND {segment.last_position}"
    )
    others = [s for s in sealed.segments_of({segment.schema_key}, segment.bucket) if s.key != segment.key]
    if kept := _paths(log, [s for s in others if s.position_base == 0]):
        connection.execute(f"DELETE FROM _lost WHERE position IN (SELECT position FROM {parquet_relation(kept)})")
    payload, relation = pa.schema([COMMIT_SCHEMA.field("payload")]), "_lost"
    if not segment.untyped:
        payload = registry.stored_schema(*segment.schema_key)
        relation = typed_events(connection, "_lost", registry).relations.get(segment.schema_key, "")
    rows = connection.execute(f"SELECT count(*) FROM {relation}").fetchone() if relation else (0,)
    if rows is None or rows[0] != segment.rows:
        raise _CannotRepairError(f"its commits have {rows[0] if rows else 0} of its events")
    [made] = write_segments(
        connection,
        log.store,
        bucket_count=sealed.bucket_count,
        schema_key=segment.schema_key,
        relation=relation,
        payload=payload,
        untyped=segment.untyped,
    )
    return made


def _commits_of(log: EventLog, segment: Segment) -> list[CommitInfo]:
    """Return the commits that may hold events of a segment; none if the first of them was removed."""
    return [
        info
        for info in _commits_before(log, segment.last_position)
        if info.import_id is None and info.last_position >= segment.first_position
    ]


def _commits_before(log: EventLog, position: int) -> Iterator[CommitInfo]:
    """Yield the commits that begin at or before a position, from the first that was not removed."""
    number = log.first_commit()
    while number and (info := log.commit_info(number)) is not None and info.first_position <= position:
        yield info
        number += 1


def _paths(log: EventLog, segments: Sequence[Segment]) -> list[Path]:
    """Return the paths of those segments that are whole."""
    return [log.segment_path(s) for s in segments if _is_whole(log, s)]


def _heads_anew(
    connection: duckdb.DuckDBPyConnection, log: EventLog, bucket_count: int, segments: Sequence[Segment]
) -> list[HeadsRun]:
    if not (paths := [log.segment_path(s) for s in segments]):
        return []
    return write_heads(connection, log.store, bucket_count=bucket_count, relation=parquet_relation(paths))
