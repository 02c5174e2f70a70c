"""Finding a place in the log: where it stood at a position, or at a moment, by a few commit footers.

Commits are numbered without gaps, and neither their positions nor their ``recorded_at`` ever decrease: so both are
found by halving. Events of a bulk import carry the start of the import as their own ``recorded_at``; what counts here
is that of the commit, which is when everybody could see them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from refold.event_schemas import EmptyLogError, Registry, UsageError
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.reads.read import read_positions


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log.

    Attributes:
        position: of the last event before it.
        commit_number: of the commit that holds that event, though it may go on behind the place.
        recorded_at: when that commit was recorded, RFC 3339.
    """

    position: int
    commit_number: int
    recorded_at: str


def find_place(log: EventLog, registry: Registry, text: str) -> Place:
    """Find a place as a user names it: a position, or a moment in RFC 3339 with its offset from UTC.

    Raises:
        UsageError: it is neither, or the log has no such place.
        EmptyLogError: the log has no place at all.
    """
    if text.strip().isdecimal():
        return find_position(log, registry, int(text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{text!r} is neither a position nor a moment. Give a number, or a time such as 2026-01-31T12:00:00Z."
        ) from error
    if moment.tzinfo is None:
        raise UsageError(f"{text!r} does not say in which time zone. Add Z for UTC, or an offset such as +01:00.")
    return find_moment(log, moment)


def find_position(log: EventLog, registry: Registry, position: int) -> Place:
    """Find the place behind an event.

    Args:
        log: the log.
        registry: the contracts; needed where the event's commit was deleted after sealing.
        position: of the event.

    Raises:
        UsageError: there is no such event.
        EmptyLogError: there is none at all.
    """
    sealed = log.manifest()
    end = _end(log, sealed)
    if not 1 <= position <= end.position:
        raise UsageError(f"The log {log.url} has no position {position:,}: it goes from 1 to {end.position:,}.")
    number = 1 + _last(log, end.commit_number - 1, lambda info: info.last_position < position)
    info = log.commit_info(number)
    if info is not None and info.first_position <= position:
        return Place(position, info.number, info.recorded_at.isoformat())
    if position in (end.position, sealed.sealed_position):
        return end if position == end.position else _sealed_place(sealed)
    [event] = read_positions(log, registry, position - 1, position)
    return Place(position, event.commit_number, event.recorded_at.isoformat())


def find_moment(log: EventLog, moment: datetime) -> Place:
    """Find the place behind the last commit that was recorded at or before a moment.

    Args:
        log: the log.
        moment: with a time zone.

    Raises:
        UsageError: nothing was recorded by then, or those commits were deleted.
        EmptyLogError: nothing was ever recorded.
    """
    sealed = log.manifest()
    end = _end(log, sealed)
    number = _last(log, end.commit_number, lambda info: info.recorded_at <= moment)
    if (info := log.commit_info(number)) is not None:
        return _place(info)
    if number == sealed.sealed_commit and number and datetime.fromisoformat(sealed.recorded_at) <= moment:
        return _sealed_place(sealed)
    oldest = log.commit_info(number + 1)
    recorded = f"commit {number + 1} was recorded at {oldest.recorded_at.isoformat()}" if oldest else "none is left"
    if number == 0:
        raise UsageError(
            f"Nothing was recorded in the log {log.url} at or before {moment.isoformat()}: {recorded}. Give a later "
            "time."
        )
    raise UsageError(
        f"Where the log {log.url} stood at {moment.isoformat()} cannot be told any more: "
        f"commits up to {number} were deleted after they had been sealed, and {recorded}. Give a later time, or a "
        "position; events themselves are all there."
    )


def _end(log: EventLog, sealed: Manifest) -> Place:
    last = log.last_commit(sealed.sealed_commit)
    if last is not None:
        return _place(last)
    if sealed.sealed_position == 0:
        raise EmptyLogError(f"The log {log.url} holds no events, so there is no place in it. Append some first.")
    return _sealed_place(sealed)


def _place(info: CommitInfo) -> Place:
    return Place(info.last_position, info.number, info.recorded_at.isoformat())


def _sealed_place(sealed: Manifest) -> Place:
    return Place(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at)


def _last(log: EventLog, number: int, holds: Callable[[CommitInfo], bool]) -> int:
    """Find the last commit, up to a number, of which something holds that holds of all before; 0 if of none.

    It is taken to hold of deleted ones, which are older than all others.
    """
    last, beyond = 0, number + 1
    while beyond - last > 1:
        middle = (last + beyond) // 2
        info = log.commit_info(middle)
        last, beyond = (middle, beyond) if info is None or holds(info) else (last, middle)
    return last
