"""Verifying a log: every object is what manifest and commits say, and no event is missing, double or out of place.

Commits first, by their footers; then bucket by bucket the segments, the streams in them and the stream heads; then
positions and event ids of the whole log. Memory stays bounded: what is large is sorted and grouped by DuckDB, which
spills to disk. A damaged object is one finding, and what cannot be checked without it is told, not guessed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from refold.event_schemas import Registry
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.verification.check_commits import check_commits, check_manifest
from refold.warehouse.event_log.verification.check_segments import SegmentCheck
from refold.warehouse.event_log.verification.findings import Finding, Findings

_MEMORY = "1GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a check of the log saw.

    Attributes:
        events: how many events.
        streams: how many streams.
        commits: how many commit objects.
        segments: how many live segments.
        findings: what is wrong; at most twenty of a kind.
        more: how many further findings there were.
        unchecked: what could not be checked because of them.
    """

    events: int
    streams: int
    commits: int
    segments: int
    findings: tuple[Finding, ...]
    more: int
    unchecked: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(
    log: EventLog, registry: Registry, *, report: Callable[[int, int], None] = lambda _done, _planned: None
) -> Verification:
    """Check a whole log; it reads everything and changes nothing.

    Args:
        log: the log; appends and seals may go on, what they add is checked the next time.
        registry: the contracts, which segments must fit.
        report: called with steps done and steps planned; a step is a bucket, or a pass over commits, positions or
            event ids.

    Raises:
        StoreError: the store cannot be read at all.

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
    found = Findings()
    planned = log.bucket_count + 3
    report(0, planned)
    with (
        tempfile.TemporaryDirectory(prefix="refold-") as folder,
        connect(memory_limit=_MEMORY, temp_directory=folder) as connection,
    ):
        sealed = check_manifest(log, found)
        commits = check_commits(connection, log, sealed or Manifest(), found)
        connection.register("_commits", commits.ranges)
        check = SegmentCheck(connection, log, registry, Head(sealed or Manifest(), commits.tail), found)
        if sealed is None:
            found.skip("segments, streams and positions, since the manifest cannot be read")
        else:
            _check_segments(check, report, planned)
    report(planned, planned)
    return Verification(
        events=check.events,
        streams=check.streams,
        commits=len(commits.ranges),
        segments=len(check.readable),
        findings=tuple(found.found),
        more=found.left_out.total(),
        unchecked=tuple(found.unchecked),
    )


def _check_segments(check: SegmentCheck, report: Callable[[int, int], None], planned: int) -> None:
    for bucket in range(check.log.bucket_count):
        report(1 + bucket, planned)
        check.bucket(bucket)
    report(planned - 2, planned)
    check.positions()
    report(planned - 1, planned)
    check.event_ids()
