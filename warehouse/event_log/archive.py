"""The archive: sealed events that were recorded long ago, moved to another store, from which rebuilds still read them.

A segment is copied and read back, then a manifest names its copy: before that manifest every reader uses the log's own
object, after it the archive's. ``retention`` removes the object that no manifest names any more, after its window. So
a process that is killed at any step leaves every event in at least one place, and the next run completes it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from refold.event_schemas import DamagedLogError, LogError, ObjectNotFoundError, UsageError
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.digests import DigestError, check_file
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record

ARCHIVE_KEY = "archive.json"

_COPIES = 8
"""Segments that are copied at the same time: most of a copy's time is waiting for a store."""

_MOVED = re.compile(r"-moved([0-9]+)$")

_ATTEMPTS = 5
"""Each attempt that fails was overtaken by a seal; the copies are kept for the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was moved into the archive, or back.

    Attributes:
        segments: number of segments.
        events: number of their events.
        bytes: their size.
        manifest: number of the manifest that names them in their new place; None if there was nothing to move.
    """

    segments: int = 0
    events: int = 0
    bytes: int = 0
    manifest: int | None = None

    @classmethod
    def of(cls, segments: Sequence[Segment], manifest: int | None = None) -> Moved:
        """Sum up some segments."""
        rows, size = sum(s.rows for s in segments), sum(s.bytes for s in segments)
        return cls(segments=len(segments), events=rows, bytes=size, manifest=manifest)


@dataclass(frozen=True, slots=True)
class _ArchiveDescription:
    """What ``archive.json`` says: the log whose events the archive holds."""

    log_id: str
    domain: str


def to_archive(log: EventLog, before: datetime) -> list[Segment]:
    """Return the segments whose events were all recorded before a time, and which are not archived yet.

    Args:
        log: the log.
        before: the time, with a time zone.
    """
    return [s for s in log.manifest().segments if _is_older(s, before)]


def archive(
    log: EventLog, *, before: datetime, to: str, report: Callable[[int, int], None] = lambda _done, _all: None
) -> Moved:
    """Move the segments whose events were all recorded before a time to an archive.

    Args:
        log: the log. Appends, seals and rebuilds may go on meanwhile.
        before: the time, with a time zone. The events of an import were recorded when the import began.
        to: URL of the archive, in any store; one archive holds segments of one log.
        report: called with the bytes that were copied, and with those of all segments to be moved.

    Raises:
        UsageError: the URL is the log's own.
        LogError: the archive holds another log's events, or seals overtook every attempt.
        DamagedLogError: a segment is damaged; nothing was moved.

    Example:
        >>> import tempfile
        >>> from datetime import UTC, datetime
        >>> from refold import create_log
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = create_log(f"{folder}/log", domain_name="orders")
        ...     archive(log, before=datetime.now(UTC), to=f"{folder}/archive")
        Moved(segments=0, events=0, bytes=0, manifest=None)
    """
    store = open_store(to)
    own = f"{log.url}/"
    if f"{store.url}/".startswith(own) or own.startswith(f"{store.url}/"):
        raise UsageError(f"The archive {store.url} must be outside of the log {log.url}. Give another --to.")
    return _move(log, lambda s: _is_older(s, before), store, report)


def restore(
    log: EventLog, *, after: datetime | None = None, report: Callable[[int, int], None] = lambda _done, _all: None
) -> Moved:
    """Move archived segments back into the log.

    Args:
        log: the log.
        after: only segments with an event that was recorded at this time or later; by default all.
        report: as for :func:`archive`.

    Raises:
        LogError: seals overtook every attempt.
        DamagedLogError: an object of the archive is missing or damaged; nothing was moved.
    """
    return _move(log, lambda s: bool(s.archive) and not (after and _is_before(s, after)), log.store, report)


def _is_older(segment: Segment, before: datetime) -> bool:
    return not segment.archive and _is_before(segment, before)


def _is_before(segment: Segment, time: datetime) -> bool:
    """Check whether all events were recorded before a time; logs of the first releases do not say it."""
    return bool(segment.last_recorded_at) and datetime.fromisoformat(segment.last_recorded_at) < time


def _move(
    log: EventLog, chosen: Callable[[Segment], bool], target: ObjectStore, report: Callable[[int, int], None]
) -> Moved:
    log.check_writable()
    url = "" if target is log.store else target.url
    for _ in range(_ATTEMPTS):
        sealed = log.manifest()
        moving = [s for s in sealed.segments if chosen(s)]
        if not moving:
            return Moved()
        if url:
            _claim(log, target)
        _copy_all(log, moving, target, report)
        moved = {s.key: dataclasses.replace(s, key=_next_key(s.key), archive=url) for s in moving}
        segments = tuple(moved.get(s.key, s) for s in sealed.segments)
        following = dataclasses.replace(sealed, number=sealed.number + 1, segments=segments)
        if manifests.publish(log.store, following):
            return Moved.of(moving, following.number)
    raise LogError(
        f"Other processes sealed the log {log.url} meanwhile, {_ATTEMPTS} times. What was copied is kept: run the "
        "command again when they have ended."
    )


def _claim(log: EventLog, target: ObjectStore) -> None:
    """Make the archive this log's, unless it is another's."""
    target.put_if_absent(ARCHIVE_KEY, encode_record(_ArchiveDescription(log.log_id, log.domain_name)))
    try:
        found = decode_record(target.get(ARCHIVE_KEY), _ArchiveDescription)
    except RecordError as error:
        raise LogError(
            f"{target.url}/{ARCHIVE_KEY} is not the description of an archive, or is damaged ({error}). Restore it "
            "from a backup, or archive to another URL."
        ) from error
    if found.log_id != log.log_id:
        raise LogError(
            f"The archive {target.url} holds events of the log {found.log_id} (domain {found.domain}), not of "
            f"{log.log_id}, which is at {log.url}. Archive to another URL."
        )


def _copy_all(
    log: EventLog, segments: Sequence[Segment], target: ObjectStore, report: Callable[[int, int], None]
) -> None:
    total, done = sum(s.bytes for s in segments), 0
    report(0, total)
    with ThreadPoolExecutor(_COPIES, thread_name_prefix="copy") as pool:
        for size in pool.map(lambda s: _copy(log, s, target), segments):
            done += size
            report(done, total)


def _next_key(key: str) -> str:
    """Return the key of a segment after its next move; none is used twice, so what is removed is never in use again.

    Example:
        >>> _next_key("segments/a-b.parquet"), _next_key("segments/a-b-moved9.parquet")
        ('segments/a-b-moved1.parquet', 'segments/a-b-moved10.parquet')
    """
    stem = key.removesuffix(".parquet")
    before = _MOVED.search(stem)
    return f"{stem[: before.start()] if before else stem}-moved{int(before[1]) + 1 if before else 1}.parquet"


def _copy(log: EventLog, segment: Segment, target: ObjectStore) -> int:
    """Copy a segment, and read the copy back; one that an earlier run has made is only read."""
    if not _is_there(segment, target):
        target.put_file(_next_key(segment.key), log.segment_path(segment))
        if not _is_there(segment, target):
            raise DamagedLogError(
                f"The copy of {log.url_of(segment)} in {target.url} differs from it right after it was written. "
                "Nothing was moved. Check that store, and run the command again."
            )
    return segment.bytes


def _is_there(segment: Segment, target: ObjectStore) -> bool:
    try:
        path = target.local_path(_next_key(segment.key))
        if segment.checksum:
            check_file(path, segment.checksum)
        return path.stat().st_size == segment.bytes
    except (ObjectNotFoundError, DigestError):
        return False
