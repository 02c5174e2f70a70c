"""Clocks: what a log believes of ``recorded_at``, which is the clock of whoever wrote a commit.

Positions order the log; times only describe it. Three rules keep one wrong clock from spoiling more than its own
commits:

- A writer records its own time, but no earlier than the commit before, as long as that is at most ``MAX_AHEAD`` in its
  future. Beyond that, one of the two clocks is wrong; the writer records its own time, unless that is the wrong one.
- A commit's time is wrong if it is in the future, or contradicts the times of more commits than agree with it. Whoever
  looks for a place in time passes over it.
- An age is measured with a time that is not in the future: the commit's own, else that of its object in the store.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from refold.event_schemas import ObjectNotFoundError
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.object_store import ObjectStore

MAX_AHEAD = timedelta(minutes=1)
"""Difference of two clocks up to which both are believed. Clocks that are set over the network differ by far less."""

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""No log is older than this software: a machine with an earlier time has not set its clock since it was started."""

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Time of the commit before the first."""


def next_recorded_at(store: ObjectStore, number: int, previous: datetime, *, now: datetime | None = None) -> datetime:
    """Return the time to record in the commit after another.

    Args:
        store: the log's store.
        number: number of the other commit; 0 if there is none.
        previous: time at which that was recorded, or ``NEVER``.
        now: the writer's time; that of its clock by default.

    Example:
        >>> from refold.warehouse.object_store import open_store
        >>> store, now = open_store("memory://clocks"), datetime(2026, 7, 1, tzinfo=UTC)
        >>> next_recorded_at(store, 1, now + timedelta(seconds=3), now=now).second
        3
        >>> next_recorded_at(store, 1, now + timedelta(days=3650), now=now).year
        2026
    """
    now = now or datetime.now(UTC)
    if previous - now <= MAX_AHEAD:
        return max(now, previous)
    return previous if now < EARLIEST or _confirmed(store, number, previous) else now


def _confirmed(store: ObjectStore, number: int, recorded_at: datetime) -> bool:
    """Check whether a remote store, which has a clock of its own, wrote a commit at about its recorded time."""
    if store.is_local:
        return False
    stored = stored_at(store, number)
    return stored is not None and abs(stored - recorded_at) <= MAX_AHEAD


def stored_at(store: ObjectStore, number: int) -> datetime | None:
    """Return when the store wrote a commit, by the store's clock; None if there is no such commit."""
    try:
        return store.modified(commit_key(number))
    except ObjectNotFoundError:
        return None


def appended_at(store: ObjectStore, info: CommitInfo, *, now: datetime | None = None) -> datetime | None:
    """Return when a commit was appended, by the first of two clocks that is not ahead: its writer's, its store's.

    Args:
        store: the log's store.
        info: the commit.
        now: the reader's time; that of its clock by default.

    Returns:
        The time; None if both are more than ``MAX_AHEAD`` in the reader's future.
    """
    now = now or datetime.now(UTC)
    if info.recorded_at <= now:
        return info.recorded_at
    stored = stored_at(store, info.number)
    return credible([stored, info.recorded_at] if stored else [info.recorded_at], now=now)


def credible(times: Iterable[datetime], *, now: datetime | None = None) -> datetime | None:
    """Return the first of some times that is not ahead of the reader's clock; None if all are.

    Args:
        times: what several clocks say of one moment, the best first.
        now: the reader's time; that of its clock by default.
    """
    limit = (now or datetime.now(UTC)) + MAX_AHEAD
    return next((time for time in times if time <= limit), None)


@dataclass(frozen=True, slots=True)
class WrongClock:
    """A commit whose writer's clock was wrong.

    Attributes:
        commit_number: number of the commit.
        commit_uuid: identity of the write.
        recorded_at: its time, RFC 3339.
        ahead_seconds: by how much that is ahead, at least; negative if it is behind.
        of: of which other time.
    """

    commit_number: int
    commit_uuid: str
    recorded_at: str
    ahead_seconds: float
    of: str

    def __str__(self) -> str:
        skew = timedelta(seconds=round(abs(self.ahead_seconds)))
        direction = "ahead of" if self.ahead_seconds > 0 else "behind"
        return (
            f"commit {self.commit_number} (write {self.commit_uuid}) was recorded at {self.recorded_at}, {skew} "
            f"{direction} {self.of}"
        )


def clock_ahead(info: CommitInfo, now: datetime) -> WrongClock | None:
    """Return a commit as a wrong clock if its time is in the reader's future."""
    return _wrong(info, now, _READER) if info.recorded_at - now > MAX_AHEAD else None


def wrong_clocks(infos: Sequence[CommitInfo], *, now: datetime | None = None) -> list[WrongClock]:
    """Find the commits whose time contradicts those of others, or is in the reader's future.

    Args:
        infos: all commits, in order.
        now: the reader's time; that of its clock by default.
    """
    now = now or datetime.now(UTC)
    right = right_clocks(infos, now=now)
    following: list[tuple[datetime, str]] = [(now, _READER)] * len(infos)
    for i in range(len(infos) - 2, -1, -1):
        after = infos[i + 1]
        following[i] = (
            (after.recorded_at, f"commit {after.number}, which follows it") if i + 1 in right else following[i + 1]
        )
    found: list[WrongClock | None] = []
    before: CommitInfo | None = None
    for i, info in enumerate(infos):
        if i in right:
            before = info
        elif info.recorded_at - following[i][0] > MAX_AHEAD:
            found.append(_wrong(info, *following[i]))
        elif before is not None and before.recorded_at - info.recorded_at > MAX_AHEAD:
            found.append(_wrong(info, before.recorded_at, f"commit {before.number}, which precedes it"))
    return [wrong for wrong in found if wrong is not None]


def right_clocks(infos: Sequence[CommitInfo], *, now: datetime | None = None) -> set[int]:
    """Return the indexes of the most commits whose times never decrease: so the fewest clocks are called wrong.

    This is the longest non-decreasing subsequence, by patience sorting, of the times that are not in the future.

    Args:
        infos: all commits, in order.
        now: the reader's time; that of its clock by default.
    """
    limit = (now or datetime.now(UTC)) + MAX_AHEAD
    ends: list[datetime] = []  # the earliest end of a sequence of each length
    indexes: list[int] = []  # of these ends
    before: dict[int, int] = {}
    for i, info in enumerate(infos):
        if info.recorded_at > limit:
            continue
        length = bisect.bisect_right(ends, info.recorded_at)
        ends[length : length + 1] = [info.recorded_at]
        indexes[length : length + 1] = [i]
        before[i] = indexes[length - 1] if length else -1
    right = set()
    i = indexes[-1] if indexes else -1
    while i >= 0:
        right.add(i)
        i = before[i]
    return right


_READER = "the clock of this machine"


def _wrong(info: CommitInfo, other: datetime, of: str) -> WrongClock:
    ahead = (info.recorded_at - other).total_seconds()
    return WrongClock(info.number, info.uuid, info.recorded_at.isoformat(), round(ahead, 3), of)
