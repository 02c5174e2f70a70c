"""Lag: the end of the log, and the distance of a checkpoint from it in events and in seconds.

A few lookups of commit numbers find the end, and one more footer gives the age of the first missing event. So measuring
is cheap, however many unsealed commits the log has.

Ages are measured by the clock of the reader. A commit whose own time is in the future is as old as its object in the
store, or as a later commit; if none of them has a credible time, its age is unknown.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime

from refold.event_schemas import GenerationError
from refold.warehouse.event_log.clocks import WrongClock, appended_at, clock_ahead, credible
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.generations import Generation

_MAX_LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log.

    Attributes:
        position: position of the last event; 0 for an empty log.
        commit_number: number of the last commit; 0 for an empty log.
        recorded_at: time at which that commit was recorded, RFC 3339; empty for an empty log.
        sealed_position: position up to which the log is sealed.
        appended_at: the same time, or that of its object in the store if that commit's clock was ahead, RFC 3339; empty
            for an empty log, or if both clocks were ahead.
        ahead: the commit, if its clock is ahead of the reader's.
        commit_digest: digest of the last commit.
    """

    position: int
    commit_number: int
    recorded_at: str
    sealed_position: int
    appended_at: str = ""
    ahead: WrongClock | None = None
    commit_digest: str = ""

    @property
    def unsealed(self) -> int:
        """Number of unsealed events."""
        return self.position - self.sealed_position


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a checkpoint is behind the log.

    Attributes:
        events: number of events after it.
        seconds: age of the oldest of these; 0 if there is none, None if it is unknown.
        ahead: the first commit after it, if its clock is ahead of the reader's.
    """

    events: int
    seconds: float | None
    ahead: WrongClock | None = None


NEVER_BUILT = Checkpoint(0, 0, "")
"""Checkpoint of a read model that was never built."""


def find_end(log: EventLog) -> LogEnd:
    """Find the end of a log, without reading the footers of all unsealed commits.

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
        ...     find_end(log).position
        1
    """
    sealed = log.manifest()
    last = log.last_commit(sealed.sealed_commit)
    if last is None:
        times = (sealed.recorded_at, sealed.sealed_position, _credible(sealed.recorded_at))
        return LogEnd(sealed.sealed_position, sealed.sealed_commit, *times, commit_digest=sealed.sealed_digest)
    now = datetime.now(UTC)
    appended = appended_at(log.store, last, now=now)
    return LogEnd(
        last.last_position,
        last.number,
        last.recorded_at.isoformat(),
        sealed.sealed_position,
        appended.isoformat() if appended else "",
        clock_ahead(last, now),
        last.digest,
    )


def checkpoint_of(generation: Generation | None) -> Checkpoint:
    """Return the checkpoint of a generation."""
    if generation is None:
        return NEVER_BUILT
    return Checkpoint(generation.position, generation.commit_number, generation.recorded_at, generation.commit_digest)


def lag_of(log: EventLog, end: LogEnd, at: Checkpoint, *, now: datetime | None = None) -> Lag:
    """Measure the lag of a checkpoint, from the footer of the first commit after it, or of a few if its clock is ahead.

    Args:
        log: the log.
        end: the end of the log; find it after reading ``at``, so that it is not before it.
        at: the checkpoint.
        now: the current time; that of the clock by default.

    Raises:
        GenerationError: the log does not have the commit of the checkpoint (:func:`check_history`).
    """
    first = check_history(log, end, at)
    if end.position <= at.position:
        return Lag(0, 0.0)
    unseen, now = end.position - at.position, now or datetime.now(UTC)
    if first is None:
        # If that commit was deleted, the checkpoint's own time is an upper bound of the lag.
        return Lag(unseen, age_of(at.recorded_at, now=now) if _credible(at.recorded_at, now=now) else None)
    since = first_appended_at(log, first, now=now)
    seconds = age_of(since.isoformat(), now=now) if since else None
    return Lag(unseen, seconds, clock_ahead(first, now))


def check_history(log: EventLog, end: LogEnd, at: Checkpoint) -> CommitInfo | None:
    """Check that a log still has the history from which tables were made.

    Args:
        log: the log.
        end: its end, found after reading ``at``.
        at: checkpoint of the tables.

    Returns:
        The first commit after the checkpoint; None if there is none, or it was removed after it was sealed.

    Raises:
        GenerationError: the log ends before the checkpoint, or has another commit there.
    """
    if at.commit_number > end.commit_number or at.position > end.position:
        raise GenerationError(
            f"The read models are at position {at.position:,} (commit {at.commit_number}), but the log {log.url} ends "
            f"at position {end.position:,} (commit {end.commit_number}): it is an older copy, or another log. "
            f"{_RESTORED}"
        )
    first = log.commit_info(at.commit_number + 1) if end.commit_number > at.commit_number else None
    found = first.previous if first else end.commit_digest if end.commit_number == at.commit_number else ""
    if found and at.commit_digest and found != at.commit_digest:
        raise GenerationError(
            f"The read models were made from commit {at.commit_number} with the digest {at.commit_digest[:16]}…, but "
            f"that of the log {log.url} has {found[:16]}…: the log has another history since it was restored, or one "
            f"of its commits was replaced. {_RESTORED}"
        )
    return first


_RESTORED = (
    "Give the log that they were made from; or, if this log is the right one, make them again with `refold rebuild "
    "--all`."
)


def first_appended_at(log: EventLog, first: CommitInfo, *, now: datetime) -> datetime | None:
    """Return when a commit was appended; if its clocks were ahead, when the next with a credible one was.

    Args:
        log: the log.
        first: the commit.
        now: the reader's time.
    """
    commits = itertools.chain([first], log.commits_after(first.end))
    times = (appended_at(log.store, info, now=now) for info in itertools.islice(commits, _MAX_LOOKED_AT))
    return next((time for time in times if time is not None), None)


def _credible(recorded_at: str, *, now: datetime | None = None) -> str:
    """Return a time, or nothing if it is in the future."""
    return recorded_at if recorded_at and credible([datetime.fromisoformat(recorded_at)], now=now) else ""


def age_of(since: str, *, now: datetime | None = None) -> float:
    """Return the seconds since a time; 0 for a time in the near future, which a fast clock may record.

    Example:
        >>> age_of("2025-03-01T12:00:00+00:00", now=datetime(2025, 3, 1, 12, 0, 5, tzinfo=UTC))
        5.0
    """
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(since)
    return round(max(passed.total_seconds(), 0.0), 3)
