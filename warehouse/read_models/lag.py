"""Lag: the end of the log, and the distance of a checkpoint from it in events and in seconds.

A few lookups of commit numbers find the end, and one more footer gives the age of the first missing event. So measuring
is cheap, however many unsealed commits the log has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.generations import Generation


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of a log.

    Attributes:
        position: position of the last event; 0 for an empty log.
        commit_number: number of the last commit; 0 for an empty log.
        recorded_at: time at which that commit was recorded, RFC 3339; empty for an empty log.
        sealed_position: position up to which the log is sealed.
    """

    position: int
    commit_number: int
    recorded_at: str
    sealed_position: int

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
    """

    events: int
    seconds: float | None


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
        return LogEnd(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at, sealed.sealed_position)
    return LogEnd(last.last_position, last.number, last.recorded_at.isoformat(), sealed.sealed_position)


def checkpoint_of(generation: Generation | None) -> Checkpoint:
    """Return the checkpoint of a generation."""
    if generation is None:
        return NEVER_BUILT
    return Checkpoint(generation.position, generation.commit_number, generation.recorded_at)


def lag_of(log: EventLog, end: LogEnd, at: Checkpoint, *, now: datetime | None = None) -> Lag:
    """Measure the lag of a checkpoint, from the footer of the first commit after it.

    Args:
        log: the log.
        end: the end of the log; find it after reading ``at``, so that it is not before it.
        at: the checkpoint.
        now: the current time; that of the clock by default.
    """
    if end.position <= at.position:
        return Lag(0, 0.0)
    unseen = end.position - at.position
    first = log.commit_info(at.commit_number + 1)
    # If that commit was deleted, the checkpoint's own time is an upper bound of the lag.
    since = first.recorded_at.isoformat() if first else at.recorded_at
    return Lag(unseen, age_of(since, now=now) if since else None)


def age_of(since: str, *, now: datetime | None = None) -> float:
    """Return the seconds since a time; 0 for a time in the future, which a fast clock may record.

    Example:
        >>> age_of("2025-03-01T12:00:00+00:00", now=datetime(2025, 3, 1, 12, 0, 5, tzinfo=UTC))
        5.0
    """
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(since)
    return round(max(passed.total_seconds(), 0.0), 3)
