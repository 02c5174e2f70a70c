"""The bucket count changes: every segment is rewritten, and one manifest makes the new ones live.

Before that manifest every reader uses the old segments, after it the new ones; ``retention`` removes the old ones after
its window. Appends, seals and streams may go on meanwhile. An import that is published in the same instant has the old
buckets: readers refuse it until a seal has rewritten it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from refold.event_schemas import LogError, UsageError
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.event_log.opening import MAX_BUCKETS
from refold.warehouse.event_log.segments import stored_relation, write_heads, write_segments

_ATTEMPTS = 10
"""Each attempt that fails was overtaken by a seal; the next rewrites only what that seal has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebucketed:
    """What was done.

    Attributes:
        before: number of buckets before.
        after: number of buckets now.
        segments: number of segments now.
        manifest: number of the manifest that names them; None if the log had so many buckets already.
    """

    before: int
    after: int
    segments: int
    manifest: int | None = None


def rebucket(
    log: EventLog, bucket_count: int, *, report: Callable[[int, int], None] = lambda _done, _all: None
) -> Rebucketed:
    """Change the number of buckets, which is the number of units of parallelism.

    Args:
        log: the log.
        bucket_count: a multiple of the number of buckets now, so that each bucket is divided.
        report: called with the bytes of the segments that were rewritten, and of all of them.

    Raises:
        UsageError: the count is no multiple, or too large.
        LogError: some segments are archived, or seals overtook every attempt; nothing was changed.

    Example:
        >>> import tempfile
        >>> from refold import create_log
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = create_log(folder, domain_name="orders")
        ...     rebucket(log, 128)
        Rebucketed(before=64, after=128, segments=0, manifest=1)
    """
    log.check_writable()
    segments: dict[str, list[Segment]] = {}
    heads: dict[str, list[HeadsRun]] = {}
    for _ in range(_ATTEMPTS):
        sealed = log.manifest()
        if sealed.bucket_count == bucket_count:
            return Rebucketed(before=bucket_count, after=bucket_count, segments=len(sealed.segments))
        _check(log, sealed, bucket_count)
        _rewrite_all(log, [s for s in sealed.segments if s.key not in segments], bucket_count, segments, report)
        for run in sealed.heads:
            if run.key not in heads:
                heads[run.key] = _rewrite_heads(log, [run], bucket_count)
        live = [new for old in sealed.segments for new in segments[old.key]]
        following = dataclasses.replace(
            sealed,
            number=sealed.number + 1,
            bucket_count=bucket_count,
            segments=tuple(sorted(live, key=manifests.in_order)),
            heads=tuple(new for old in sealed.heads for new in heads[old.key]),
        )
        if manifests.publish(log.store, following):
            return Rebucketed(
                before=sealed.bucket_count, after=bucket_count, segments=len(live), manifest=following.number
            )
    raise LogError(
        f"Other processes sealed the log {log.url} meanwhile, {_ATTEMPTS} times. Nothing was changed; run the command "
        "again when they have ended."
    )


def _check(log: EventLog, sealed: Manifest, bucket_count: int) -> None:
    if bucket_count > MAX_BUCKETS or bucket_count < 1 or bucket_count % sealed.bucket_count:
        raise UsageError(
            f"The log {log.url} has {sealed.bucket_count} buckets, not {bucket_count}. Give a multiple of that, up to "
            f"{MAX_BUCKETS}: each bucket is divided."
        )
    if archived := sum(1 for s in sealed.segments if s.archive):
        raise LogError(
            f"{archived} segments of the log {log.url} are archived, and would be rewritten into the log. Move them "
            "back with `refold archive restore` first."
        )


def with_bucket_count(log: EventLog, info: CommitInfo, bucket_count: int) -> CommitInfo:
    """Return a commit with the buckets of the manifest: the segments of an import with others are rewritten."""
    if log.has_bucket_count(info, bucket_count):
        return info
    made: dict[str, list[Segment]] = {}
    _rewrite_all(log, info.segments, bucket_count, made)
    return dataclasses.replace(
        info,
        bucket_count=bucket_count,
        segments=tuple(new for old in info.segments for new in made[old.key]),
        heads_runs=tuple(_rewrite_heads(log, info.heads_runs, bucket_count)),
    )


def _rewrite_all(
    log: EventLog,
    segments: Sequence[Segment],
    bucket_count: int,
    made: dict[str, list[Segment]],
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Rewrite segments, and add the new ones by the key of the old one."""
    total, done = sum(s.bytes for s in segments), 0
    report(0, total)
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rebucket") as pool:
        for segment, new in zip(segments, pool.map(lambda s: _rewrite(log, s, bucket_count), segments), strict=True):
            made[segment.key] = new
            report(done := done + segment.bytes, total)


def _rewrite(log: EventLog, segment: Segment, bucket_count: int) -> list[Segment]:
    relation, payload = stored_relation(segment, log.segment_path(segment))
    with connect(threads=1) as connection:
        return write_segments(
            connection,
            log.store,
            bucket_count=bucket_count,
            schema_key=segment.schema_key,
            relation=relation,
            payload=payload,
            untyped=segment.untyped,
        )


def _rewrite_heads(log: EventLog, runs: Sequence[HeadsRun], bucket_count: int) -> list[HeadsRun]:
    if not runs:
        return []
    with connect(threads=1) as connection:
        relation = parquet_relation([log.heads_path(run) for run in runs])
        return write_heads(connection, log.store, bucket_count=bucket_count, relation=relation)
