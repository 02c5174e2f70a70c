"""Finding a place in the log by position or by time, from a few commit footers.

Commit numbers have no gaps and positions never decrease, so a binary search finds a position. Times may decrease, since
each is its writer's: the place at a time is after the last commit recorded by then, and commits of wrong clocks are
passed over. Which clocks are wrong shows in an even sample of the commits, and then in one between two of these.

Events of a bulk import have the start of the import as their ``recorded_at``; the search uses that of the commit, which
is when they became visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from refold.event_schemas import EmptyLogError, Registry, UsageError
from refold.warehouse.event_log.clocks import NEVER, right_clocks
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.reads.read import read_positions

_SAMPLE = 1_000
"""Commits that are compared at a time: the clocks of a tenth of them may be wrong, and half a second reads them."""

_ENDS = 3
"""Commits at both ends of a sample that are in it: a single one would contradict no other."""

_READERS = 16


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the log.

    Attributes:
        position: position of the last event before it.
        commit_number: number of the commit that holds that event; the commit may extend beyond the place.
        recorded_at: time at which that commit was recorded, RFC 3339.
        commit_digest: digest of that commit; empty if the place is inside it.
    """

    position: int
    commit_number: int
    recorded_at: str
    commit_digest: str = ""


def find_place(log: EventLog, registry: Registry, text: str) -> Place:
    """Find the place that a text names: a position, or a time in RFC 3339 with its offset from UTC.

    Raises:
        UsageError: the text is neither, or the log has no such place.
        EmptyLogError: the log has no events.
    """
    if text.strip().isdecimal():
        return find_position(log, registry, int(text))
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{text!r} is neither a position nor a time. Give a number, or a time such as 2026-01-31T12:00:00Z."
        ) from error
    if time.tzinfo is None:
        raise UsageError(f"{text!r} has no time zone. Add Z for UTC, or an offset such as +01:00.")
    return find_time(log, time)


def find_position(log: EventLog, registry: Registry, position: int) -> Place:
    """Find the place after an event.

    Args:
        log: the log.
        registry: the contracts; used if the event's commit was deleted after it was sealed.
        position: position of the event.

    Raises:
        UsageError: there is no such event.
        EmptyLogError: the log has no events.
    """
    sealed = log.manifest()
    end = _end(log, sealed)
    if not 1 <= position <= end.position:
        raise UsageError(f"The log {log.url} has no position {position:,}: give one from 1 to {end.position:,}.")
    number = 1 + _last(log, end.commit_number - 1, lambda info: info.last_position < position)
    info = log.commit_info(number)
    if info is not None and info.first_position <= position:
        return _place(info) if position == info.last_position else _inside(info, position)
    if position in (end.position, sealed.sealed_position):
        return end if position == end.position else _sealed_place(sealed)
    [event] = read_positions(log, registry, position - 1, position)
    return Place(position, event.commit_number, event.recorded_at.isoformat())


def find_time(log: EventLog, time: datetime) -> Place:
    """Find the place after the last commit that was recorded at or before a time.

    A commit before it that was recorded later had a wrong clock, and belongs to what was recorded by then.

    Args:
        log: the log.
        time: the time, with a time zone.

    Raises:
        UsageError: nothing had been recorded by then, or those commits were deleted.
        EmptyLogError: the log has no events.
    """
    sealed = log.manifest()
    end = _end(log, sealed)
    number = _last_recorded(log, end.commit_number, time)
    if (info := log.commit_info(number)) is not None:
        return _place(info)
    if number == sealed.sealed_commit and number and datetime.fromisoformat(sealed.recorded_at) <= time:
        return _sealed_place(sealed)
    oldest = log.commit_info(number + 1)
    recorded = f"commit {number + 1} was recorded at {oldest.recorded_at.isoformat()}" if oldest else "none is left"
    if number == 0:
        raise UsageError(
            f"The log {log.url} has no events recorded at or before {time.isoformat()}: {recorded}. Give a later time."
        )
    raise UsageError(
        f"The position of the log {log.url} at {time.isoformat()} is no longer known: commits up to {number} were "
        f"deleted after they had been sealed, and {recorded}. Give a later time, or a position; no event was deleted."
    )


def _end(log: EventLog, sealed: Manifest) -> Place:
    last = log.last_commit(sealed.sealed_commit)
    if last is not None:
        return _place(last)
    if sealed.sealed_position == 0:
        raise EmptyLogError(
            f"The log {log.url} has no events yet, so it has no such position or time. Append "
            "events, or import some with `refold ingest`."
        )
    return _sealed_place(sealed)


def _place(info: CommitInfo) -> Place:
    return Place(info.last_position, info.number, info.recorded_at.isoformat(), info.digest)


def _inside(info: CommitInfo, position: int) -> Place:
    return Place(position, info.number, info.recorded_at.isoformat())


def _sealed_place(sealed: Manifest) -> Place:
    return Place(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at, sealed.sealed_digest)


def _last_recorded(log: EventLog, number: int, time: datetime) -> int:
    """Return the last commit, up to a number, that was recorded by a time; deleted ones are older than all others."""
    last, beyond = _last(log, number, lambda _info: False), number + 1
    earliest, latest = NEVER, datetime.max.replace(tzinfo=UTC)
    step = 0
    while step != 1:
        step = -(-(beyond - last) // _SAMPLE)
        numbers = range(last + 1, beyond)
        infos = _right(log, sorted({*numbers[:_ENDS], *numbers[::step], *numbers[-_ENDS:]}), earliest, latest)
        if not infos and step > 1:  # no clock of the sample is right: look at all
            infos, step = _right(log, numbers, earliest, latest), 1
        if until := [info for info in infos if info.recorded_at <= time]:
            last, earliest = until[-1].number, until[-1].recorded_at
        if after := [info for info in infos if info.recorded_at > time]:
            beyond, latest = after[0].number, after[0].recorded_at
    return last


def _right(log: EventLog, numbers: Sequence[int], earliest: datetime, latest: datetime) -> list[CommitInfo]:
    """Return those of some commits whose clocks were right, by each other and by the times around them."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(log.commit_info, numbers))
    infos = [info for info in found if info is not None and earliest <= info.recorded_at <= latest]
    right = right_clocks(infos)
    return [info for i, info in enumerate(infos) if i in right]


def _last(log: EventLog, number: int, holds: Callable[[CommitInfo], bool]) -> int:
    """Return the last commit, up to a number, for which a monotone condition holds; 0 if there is none.

    The condition is assumed to hold for deleted commits, which are older than all others.
    """
    last, beyond = 0, number + 1
    while beyond - last > 1:
        middle = (last + beyond) // 2
        info = log.commit_info(middle)
        last, beyond = (middle, beyond) if info is None or holds(info) else (last, middle)
    return last
