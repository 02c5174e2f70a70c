"""Verification of a log: every object matches manifest and commits; no event is missing, duplicate or misplaced.

The steps are: the footers of all commits; bucket by bucket the segments, the streams in them and the stream heads; the
positions and event ids of the whole log; the segments against the commits that were sealed into them. Memory is
bounded: DuckDB sorts and groups what is large, and spills to disk. A damaged object is one finding; what cannot be
checked without it is reported as unchecked.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb

from refold.event_schemas import Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.clocks import WrongClock
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.manifest_parts import forget as forget_parts
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.event_log.verification.check_commits import check_commits, check_known, check_manifest
from refold.warehouse.event_log.verification.check_positions import PositionCheck
from refold.warehouse.event_log.verification.check_sealed import SealedCheck
from refold.warehouse.event_log.verification.check_segments import Column, SegmentCheck, check_sizes
from refold.warehouse.event_log.verification.check_streams import StreamCheck
from refold.warehouse.event_log.verification.findings import Finding, Findings

_MEMORY = "1GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a verification.

    Attributes:
        events: number of events.
        streams: number of streams.
        commits: number of commit objects.
        segments: number of live segments that can be read.
        findings: what is wrong; at most twenty of a kind.
        more: number of further findings.
        unchecked: what could not be checked because of them.
        wrong_clocks: commits whose writers' clocks were wrong; this is no damage, and places in time pass over them.
    """

    events: int
    streams: int
    commits: int
    segments: int
    findings: tuple[Finding, ...]
    more: int
    unchecked: tuple[str, ...]
    wrong_clocks: tuple[WrongClock, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(
    log: EventLog,
    registry: Registry,
    *,
    fast: bool = False,
    known: tuple[int, str] | None = None,
    report: Callable[[int, int], None] = lambda _done, _planned: None,
) -> Verification:
    """Check a whole log; this reads everything and changes nothing.

    Args:
        log: the log. Appends and seals may continue; the next verification checks what they add.
        registry: the contracts of the segments.
        fast: check manifests, footers and the sizes of segments, and read no events.
        known: a commit and its digest, as they were known earlier; another digest is a finding.
        report: called with completed and planned steps; a step is a bucket, or a pass over commits, positions or event
            ids.

    Raises:
        StoreError: the store cannot be read.

    Example:
        >>> import tempfile
        >>> from refold.event_schemas import event
        >>> from refold.warehouse.event_log import Appender, create_log
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log, registry = create_log(folder, domain_name="doors"), Registry(events=[DoorOpened])
        ...     appended = Appender(log, registry).append("door-1", [DoorOpened(door="front")])
        ...     verify(log, registry).sound
        True
    """
    findings = Findings()
    forget_parts()
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, ExitStack() as stack:
        open_scratch = functools.partial(connect, memory_limit=_MEMORY, temp_directory=folder)
        connection = stack.enter_context(open_scratch())
        sealed = check_manifest(log, findings)
        planned = (sealed.bucket_count if sealed else 0) + 3
        report(0, planned)
        commits = check_commits(connection, log, sealed or log.manifest(0), findings, rows=not fast)
        if known is not None:
            check_known(log, sealed or log.manifest(0), *known, findings)
        connection.register("_ranges", commits.ranges)
        connection.execute("CREATE TABLE _commits AS FROM _ranges")
        head = Head(sealed or log.manifest(0), commits.tail)
        if sealed is None:
            findings.skip("segments, streams and positions, since the manifest cannot be read")
            segments, events, streams = 0, 0, 0
        elif fast:
            segments, events, streams = check_sizes(log, head, findings), head.position, 0
        else:
            segments, events, streams = _check_events(connection, open_scratch, log, registry, head, findings, report)
    report(planned, planned)
    return Verification(
        events=events,
        streams=streams,
        commits=len(commits.ranges),
        segments=segments,
        findings=tuple(findings.found),
        more=findings.left_out.total(),
        unchecked=tuple(findings.unchecked),
        wrong_clocks=commits.wrong_clocks,
    )


def _check_events(
    connection: duckdb.DuckDBPyConnection,
    open_scratch: Callable[[], duckdb.DuckDBPyConnection],
    log: EventLog,
    registry: Registry,
    head: Head,
    findings: Findings,
    report: Callable[[int, int], None],
) -> tuple[int, int, int]:
    """Check segments, streams, positions and event ids; return the numbers of segments, events and streams."""
    planned = head.sealed.bucket_count + 3
    by_bucket: dict[int, list[Segment]] = {}
    for segment in live_segments(head):
        by_bucket.setdefault(segment.bucket, []).append(segment)
    readable: list[tuple[Segment, Path]] = []
    suspect: set[tuple[SchemaKey, int]] = set()
    complete, events, streams = True, 0, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        check = functools.partial(_check_bucket, connection, log, registry, head, {})
        buckets = range(head.sealed.bucket_count)
        for checked in pool.map(check, buckets, [by_bucket.get(bucket, []) for bucket in buckets]):
            report(1 + checked.bucket, planned)
            findings.extend(checked.findings)
            readable += checked.readable
            suspect |= checked.suspect
            complete &= checked.complete
            events, streams = events + checked.events, streams + checked.streams
    position_check = PositionCheck(connection, head.position, readable, complete, findings)
    report(planned - 2, planned)
    position_check.check_positions()
    report(planned - 1, planned)
    position_check.check_event_ids()
    SealedCheck(open_scratch, log, registry, head.sealed, findings).check([s for s, _ in readable], suspect)
    return len(readable), events, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bucket:
    """What was found in a bucket.

    Attributes:
        bucket: the bucket.
        findings: what is wrong.
        readable: the segments that can be read, with their paths.
        suspect: schemas and buckets with a segment in which something is wrong.
        complete: whether all segments can be read.
        events: number of its events; 0 if not complete.
        streams: number of its streams; 0 if not complete.
    """

    bucket: int
    findings: Findings
    readable: list[tuple[Segment, Path]]
    suspect: set[tuple[SchemaKey, int]]
    complete: bool
    events: int = 0
    streams: int = 0


def _check_bucket(
    database: duckdb.DuckDBPyConnection,
    log: EventLog,
    registry: Registry,
    head: Head,
    columns_in: dict[str, list[Column]],
    bucket: int,
    segments: Sequence[Segment],
) -> _Bucket:
    """Check one bucket, in a thread of its own: its segments, and then its streams."""
    findings = Findings()
    with database.cursor() as connection:
        segment_check = SegmentCheck(connection, log, registry, findings, columns_in)
        readable = [(s, path) for s in segments if (path := segment_check.check(s)) is not None]
        suspect = {(s.schema_key, bucket) for s in segments if s.key not in segment_check.sound}
        complete = len(readable) == len(segments)
        events = streams = 0
        if complete:
            events, streams = StreamCheck(connection, log, head, findings).check(bucket, readable)
        else:
            findings.skip(f"streams and stream heads of bucket {bucket}, since a segment of it is damaged")
    return _Bucket(
        bucket=bucket,
        findings=findings,
        readable=readable,
        suspect=suspect,
        complete=complete,
        events=events,
        streams=streams,
    )
