"""Lag: where the log ends, and how far what is published stands behind it, in events and in seconds.

The end is found by a few looks for commit numbers, and the age of what is not shown by one more footer: so asking is
cheap, however long the tail of a log is that was not sealed for months.
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
        position: of the last event; 0 for an empty log.
        commit_number: of the last commit; 0 for an empty log.
        recorded_at: when that was recorded, RFC 3339; empty for an empty log.
        sealed_position: up to where the log is sealed.
    """

    position: int
    commit_number: int
    recorded_at: str
    sealed_position: int

    @property
    def unsealed(self) -> int:
        """How many events are not sealed yet."""
        return self.position - self.sealed_position


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a reader is behind the log.

    Attributes:
        events: events that it does not show yet.
        seconds: age of the oldest of those; 0 when there is none, None if it cannot be known.
    """

    events: int
    seconds: float | None


NOTHING_SHOWN = Checkpoint(0, 0, "")
"""Where a read model stands that was never built."""


def find_end(log: EventLog) -> LogEnd:
    """Find the end of a log, without reading the footers of all commits that are not sealed.

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


def standing_of(generation: Generation | None) -> Checkpoint:
    """Tell where in the log a generation stands."""
    if generation is None:
        return NOTHING_SHOWN
    return Checkpoint(generation.position, generation.commit_number, generation.recorded_at)


def lag_of(log: EventLog, end: LogEnd, at: Checkpoint, *, now: datetime | None = None) -> Lag:
    """Measure the lag of a reader by the footer of the first commit that it does not show.

    Args:
        log: the log.
        end: its end; look for it after ``at``, since a log never ends before what was made from it.
        at: where the reader stands.
        now: the present time; the clock's by default.
    """
    if end.position <= at.position:
        return Lag(0, 0.0)
    unseen = end.position - at.position
    first = log.commit_info(at.commit_number + 1)
    # A commit that was sealed and collected came after what is shown: that says at most too much.
    since = first.recorded_at.isoformat() if first else at.recorded_at
    return Lag(unseen, age_of(since, now=now) if since else None)


def age_of(since: str, *, now: datetime | None = None) -> float:
    """Tell how many seconds ago something was, and 0 for what a fast clock dates in the future.

    Example:
        >>> age_of("2025-03-01T12:00:00+00:00", now=datetime(2025, 3, 1, 12, 0, 5, tzinfo=UTC))
        5.0
    """
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(since)
    return round(max(passed.total_seconds(), 0.0), 3)
